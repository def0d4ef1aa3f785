"""Hostile texts: 2,000 pieces of HTML and script, each of which would show that it became more than text.

A payload that works sets an attribute `pwned` on an element, sets `window.pwned`, or loads an address below `/pwned`.
`FORMS` are the ways in which text becomes markup; `ENDS` first close what a page may have around the text, such as an
attribute, a comment or a script. Each payload has a number of its own, so that all are different.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final

NUMBER: Final = 2_000
FORMS: Final = (
    "<script>pwned={n}</script>",
    "<script src=/pwned/{n}></script>",
    "<script type=module>import'/pwned/{n}'</script>",
    "<ScRiPt>pwned={n}</sCrIpT>",
    "<script\t>pwned={n}</script\t>",
    "<script/x>pwned={n}</script>",
    "<<script>pwned={n}//<</script>",
    "<scr<script>ipt>pwned={n}</script>",
    "<img pwned={n} src=/pwned/{n}>",
    "<img pwned={n} src=x onerror=pwned={n}>",
    "<IMG pwned={n} SRC=`x`ONERROR=pwned={n}>",
    "<img/pwned={n}/src=x/onerror=pwned={n}>",
    "<img pwned={n} srcset=/pwned/{n}>",
    "<svg pwned={n} onload=pwned={n}>",
    "<svg><script>pwned={n}</script></svg>",
    "<svg><a pwned={n} xlink:href=javascript:pwned={n}>x",
    "<svg><animate pwned={n} onbegin=pwned={n} dur=1s>",
    "<svg><use href=/pwned/{n}#x pwned={n}>",
    "<math><mtext pwned={n}><a href=javascript:pwned={n}>x",
    "<iframe pwned={n} src=/pwned/{n}>",
    "<iframe pwned={n} srcdoc='<script>parent.pwned={n}</script>'>",
    "<object pwned={n} data=/pwned/{n}></object>",
    "<embed pwned={n} src=/pwned/{n}>",
    "<link pwned={n} rel=stylesheet href=/pwned/{n}>",
    "<link pwned={n} rel=prefetch href=//a.invalid/pwned/{n}>",
    "<base pwned={n} href=//a.invalid/>",
    "<meta pwned={n} http-equiv=refresh content=0;url=/pwned/{n}>",
    "<style pwned={n}>*{{background:url(/pwned/{n})}}</style>",
    "<style>@import'/pwned/{n}';</style>",
    "<b pwned={n} style=background:url(/pwned/{n})>x</b>",
    "<body pwned={n} onpageshow=pwned={n}>",
    "<video pwned={n} src=/pwned/{n} onerror=pwned={n}>",
    "<audio pwned={n} src=/pwned/{n} autoplay>",
    "<input pwned={n} autofocus onfocus=pwned={n}>",
    "<input pwned={n} type=image src=/pwned/{n}>",
    "<details pwned={n} open ontoggle=pwned={n}>x",
    "<marquee pwned={n} onstart=pwned={n}>x",
    "<form pwned={n} action=/pwned/{n}><button>x",
    "<button pwned={n} formaction=/pwned/{n}>x",
    "<a pwned={n} href=javascript:pwned={n}>x</a>",
    "<a pwned={n} href='java\tscript:pwned={n}'>x</a>",
    "<a pwned={n} href=data:text/html,x{n}>x</a>",
    "<template pwned={n}><p>x</template>",
    "<noscript><p pwned={n}>x</noscript>",
    "<p pwned={n} id=log>x</p>",
    "<td pwned={n}>x<tr pwned={n}>",
    "<table pwned={n} background=/pwned/{n}>",
    "<frameset pwned={n} onload=pwned={n}>",
    "<x-y pwned={n} onclick=pwned={n} tabindex=0>",
    "<select pwned={n} autofocus onfocus=pwned={n}>",
    "<textarea pwned={n}>x",
    "<portal pwned={n} src=/pwned/{n}>",
    "<slot pwned={n} onslotchange=pwned={n}>",
    "<!--><b pwned={n}>x",
    "<![CDATA[<b pwned={n}>x]]>",
    "<?xml-stylesheet href=/pwned/{n}?><b pwned={n}>",
    "&lt;b pwned={n}&gt;x&lt;/b&gt;",
    "&#60;script&#62;pwned={n}&#60;/script&#62;",
    "\\u003cscript\\u003epwned={n}\\u003c/script\\u003e",
    "\\x3cb pwned={n}\\x3e",
    "%3Cscript%3Epwned={n}%3C/script%3E",
    "+ADw-script+AD4-pwned={n}+ADw-/script+AD4-",
    "\uff1cscript\uff1epwned={n}\uff1c/script\uff1e",
    "{{{{pwned={n}}}}}",
    "{{% set pwned={n} %}}",
    "${{pwned={n}}}",
    "<%= pwned={n} %>",
    "`;pwned={n};`",
    "javascript:pwned={n}",
    "JaVaScRiPt:pwned={n}//",
    "data:text/html,<script>pwned={n}</script>",
    "//a.invalid/pwned/{n}",
    "onerror=pwned={n} x=",
    "__proto__[pwned]={n}",
)
ENDS: Final = (
    "",
    '">',
    "'>",
    '" pwned=x ',
    "' pwned=x ",
    "-->",
    "]]>",
    "</a>",
    "</p>",
    "</td>",
    "</pre>",
    "</code>",
    "</title>",
    "</style>",
    "</script>",
    "</option>",
    "</button>",
    "</textarea>",
    "</template>",
    "</noscript>",
    "\r\n\r\n",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\\",
    '";',
    "';",
    "*/",
)


def payloads() -> list[str]:
    """All of them, each once."""
    made = [end + form for end, form in product(ENDS, FORMS)][:NUMBER]
    assert len(made) == NUMBER
    return [text.format(n=number) for number, text in enumerate(made)]


def branch(text: str) -> str:
    """The payload as git allows it for a branch: a slash parts attributes as a space does, and cannot stand alone."""
    allowed = re.sub(r"[\x00-\x20\x7f~^:?*\[\\]", "/", text).replace("..", ".").replace("@{", "@")
    return re.sub(r"/+\.*", "/", f"x{allowed}x".removeprefix("-"))


def visible(text: str) -> str:
    """The payload as a name or a label may be: without control characters and invisible ones."""
    return "".join(character if character.isprintable() else " " for character in text)

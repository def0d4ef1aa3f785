"""OpenID Connect: users log in at an issuer, such as Keycloak or Okta, and their groups there give them roles here.

```
 browser ── GET /oidc/login ──────────► attempt: state, nonce, verifier; sealed in a cookie of ten minutes
         ◄─ 303 to the issuer ─────────┘
 issuer  ── GET /oidc/callback ───────► attempt is opened, state compared
            ?code&state                 code ──POST, PKCE──► issuer's token endpoint ──► ID token
                                        ID token: signature (JWKS), iss, aud, azp, exp, iat, nonce
                                        groups ─ --oidc-map ─► roles
         ◄─ session cookie, 303 next ── token of airunner, signed with this home's key
```

- `settings.py` is what the operator says: issuer, client, groups. `options.py` are the options for it.
- `attempt.py` is one login that has begun; `../localpath.py` checks where it leads to.
- `idtoken.py` checks ID tokens; `issuer.py` asks the issuer, and keeps what it has said about itself and its keys.
- `login.py` puts them together; `routes.py` are the paths.

Laws
- A login ends in the browser in which it began: state, nonce and verifier are in its cookie and nowhere else.
- An ID token counts by its signature under a key of the issuer, and for this client only.
- The token that is made has no role but those of the map, and ends with the ID token, after eight hours at the latest.
- The issuer's code, its tokens and the client's secret are in no log and on no page.

Source: OpenID Connect Core 1.0 and Discovery 1.0; RFC 7636 (PKCE), RFC 9207 (`iss`), RFC 9700 (security of OAuth 2.0)
"""

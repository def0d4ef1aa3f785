"""Fan a test suite out: runs each test file as a job, and gathers one JUnit report.

python examples/junit.py https://example.org/shop.git tests/test_cart.py tests/test_login.py --output report.xml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from airunner import Job, JobSpec, Stream
from airunner.sync import Client

# The job's stdout is its report alone: what pytest prints goes to stderr.
SCRIPT = '"$0" -m pytest --junitxml=report.xml "$1" >&2; code=$?; cat report.xml; exit $code'


def suites_of(client: Client, job: Job) -> list[ET.Element]:
    """Read the report of a job; a job without one, such as one whose checkout failed, is an error in the report."""
    report = b"".join(line.data for line in client.logs(job, streams=[Stream.STDOUT], attempt=job.attempt))
    try:
        return list(ET.fromstring(report))
    except ET.ParseError:
        suite = ET.Element("testsuite", name=job.spec.name, tests="1", errors="1")
        case = ET.SubElement(suite, "testcase", name=job.spec.name)
        ET.SubElement(case, "error", message=f"job {job.id} is {job.state} without a report")
        return [suite]


def main() -> int:
    """Run the files; return 0 if all tests have passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--output", type=Path, default=Path("report.xml"))
    parser.add_argument("--python", default="python3", help="the interpreter on the agents, which has pytest")
    given = parser.parse_args()
    jobs = [
        JobSpec(
            command="sh",
            args=("-c", SCRIPT, given.python, file),
            repository=given.repository,
            name=file,
            timeout_seconds=1_800,
        )
        for file in given.files
    ]
    report = ET.Element("testsuites")
    failed = 0
    with Client() as client:
        for job in client.map(jobs, cancel_on_exit=True):
            print(f"{job.spec.name}: {job.state} {job.exit_status}")
            failed += bool(job.exit_status)
            report.extend(suites_of(client, job))
    ET.ElementTree(report).write(given.output, encoding="utf-8", xml_declaration=True)
    print(f"{len(jobs) - failed} of {len(jobs)} files passed; the report is {given.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

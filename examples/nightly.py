"""Nightly batch with retries: runs a command for each customer, again and again if it fails, and reports at the end.

python examples/nightly.py 2027-01-31 north south --command ./invoices.sh

The command finds NIGHT and CUSTOMER in its environment. If cron starts this twice, or it is started again after its
machine has died, the jobs of the night are submitted only once, and the second start reports on them too.
"""

from __future__ import annotations

import argparse
import sys

from airunner import JobSpec, RetryPolicy
from airunner.sync import Client


def main() -> int:
    """Run the batch; return the number of customers whose job has failed for good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("night")
    parser.add_argument("customers", nargs="+")
    parser.add_argument("--backoff-s", type=float, default=60, help="pause before the first retry, doubled each time")
    parser.add_argument("--command", required=True, help="command line for the agents' shell")
    given = parser.parse_args()
    jobs = [
        JobSpec(
            command="sh",
            args=("-c", given.command),
            environment={"NIGHT": given.night, "CUSTOMER": customer},
            name=f"{given.night} {customer}",
            metadata={"night": given.night},
            retry=RetryPolicy(limit=3, backoff_ms=int(given.backoff_s * 1_000)),
            timeout_seconds=4 * 3_600,
        )
        for customer in given.customers
    ]
    failed = 0
    with Client() as client:
        submitted = client.submit_many(jobs, request_id=f"nightly {given.night}")
        for job in client.as_completed(submitted):
            tries = f" after {job.retries + 1} tries" if job.retries else ""
            print(f"{job.spec.name}: {job.state}{tries}")
            if job.exit_status:
                failed += 1
                for line in client.logs(job, tail=3):
                    print(f"  {line.text}")
    print(f"{len(jobs) - failed} of {len(jobs)} customers are done")
    return failed


if __name__ == "__main__":
    sys.exit(main())

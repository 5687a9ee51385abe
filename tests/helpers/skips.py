"""`--strict-skips`: a test that is skipped for another reason than those that CI allows fails."""

import pytest

ALLOWED = (
    "needs the ACDC samples",
    "needs ACDC-mini beside the checkout",
    "no real patients beside the checkout",
    "needs the right to mount a tmpfs",
    "needs a device that is always full",
    "needs a machine without that device",
    "the C library is not glibc",
)


def pytest_addoption(parser):
    parser.addoption("--strict-skips", action="store_true", help="A test skipped for a reason that is not allowed fails, as for a missing package.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if item.config.getoption("--strict-skips") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in ALLOWED:
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report

"""What the contract suite costs: CPU seconds per method. A plugin of the whole suite, so that xdist prints it too."""

import time
from collections.abc import Generator

import pytest

BUDGET = 6.0
SUITE = "test_contract.py"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_started] = time.process_time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, object, object]:
    report = yield
    if call.when == "call" and SUITE in item.nodeid:
        report.user_properties.append(("cpu_seconds", time.process_time() - item.stash[_started]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    costs = {
        report.nodeid.partition("::test_")[2]: seconds
        for report in reports
        for key, seconds in report.user_properties
        if key == "cpu_seconds"
    }
    if not costs:
        return
    terminalreporter.section(f"fusion contract: CPU seconds, budget {BUDGET:g} a method")
    for name, seconds in sorted(costs.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"{seconds:6.1f}  {name}{'  over budget' if seconds > BUDGET else ''}")


_started = pytest.StashKey[float]()

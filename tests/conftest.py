"""What every kind of test shares: the kinds themselves, and a mount namespace out of which nothing leaks.

Fixtures stand beside the tests that use them.
"""

pytest_plugins = ["tests.support.filesystems", "tests.support.kinds"]

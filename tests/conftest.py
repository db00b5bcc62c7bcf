"""What every kind of test shares: the kinds themselves, and a mount namespace out of which nothing leaks.

Fixtures stand beside the tests that use them.
"""

import pytest

# Tests that two folders share lie there, and say as much as others when they fail.
pytest.register_assert_rewrite("tests.support.kube_contract")

pytest_plugins = ["tests.support.filesystems", "tests.support.kinds"]

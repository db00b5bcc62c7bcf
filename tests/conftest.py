"""What every kind of test shares: the kinds themselves. Fixtures stand beside the tests that use them."""

pytest_plugins = ["tests.support.kinds"]

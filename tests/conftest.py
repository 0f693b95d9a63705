"""Settings for every test."""

from hypothesis import settings

# No test is timed, so an example may take as long as it takes. The parent is hypothesis's own choice ("ci" in CI).
settings.register_profile("gaugefix", settings(), deadline=None)
settings.load_profile("gaugefix")

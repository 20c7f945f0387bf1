"""Every error viewsync raises on purpose; the type says whose fault it is.

ViewsyncError
├── UserError            the user's configuration, files or command: `viewsync` prints one line, exit 2
│   ├── ConfigError      a configuration file, an override or an environment variable
│   ├── BundleError      a bundle that is damaged, incomplete, or not the one asked for
│   ├── KeysError        a key file or the allow-list
│   └── SourceError      a camera, recording or folder of images that cannot be opened or read
├── PeerError            what another program sent us; counted and refused, never the end of a server
│   └── WireError        a message that breaks the wire format; `reason` is a short slug
└── InternalError        a broken promise of our own code: exit 1

A message is one line: what is wrong, where, and what to do. `calib.errors.CalibError` stands beside this
tree, because calib imports nothing of ours; the command line shows it as a UserError. This module imports
nothing.
"""


class ViewsyncError(Exception):
    """Base of every error raised on purpose by viewsync, edge, hub and export."""


class UserError(ViewsyncError):
    """The user can put this right: configuration, files, command line, permissions, ports."""


class ConfigError(UserError):
    """A configuration file, override or environment variable is wrong."""


class BundleError(UserError):
    """A bundle is damaged, incomplete or does not match what was asked of it."""


class KeysError(UserError):
    """A key file or the allow-list is missing, damaged or contradicts the request."""


class SourceError(UserError):
    """A camera, recording or folder of images cannot be opened or read."""


class PeerError(ViewsyncError):
    """Another program broke the agreement between us."""


class WireError(PeerError):
    """A message breaks the wire format.

    reason: a short slug such as "too-large", fit for a metric's label and a refusal; detail: what, where, in
    words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InternalError(ViewsyncError):
    """Our own code broke a promise; please report it."""

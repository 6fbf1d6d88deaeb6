"""Choosing a version."""

from verorder.version import Version


def latest(texts, prereleases=False):
    """Return the newest version as text, or None; pre-releases only count when asked for."""
    versions = [Version(text) for text in texts]
    if not prereleases:
        versions = [version for version in versions if not version.is_prerelease]
    return str(max(versions)) if versions else None


def update_for(installed, offered):
    """Return the newest of `offered` that is newer than `installed`, or None.

    Pre-releases are offered to those who run a pre-release, and as a preview to all others.
    """
    newest = latest(offered, prereleases=True)
    if newest is None or Version(newest) <= Version(installed):
        return None
    return newest

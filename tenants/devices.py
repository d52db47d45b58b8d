"""What a log-in was made with, in a few words for its owner: "WeChat, iPhone". No version, and nothing that counts."""

from typing import Final

# In this order: what comes later names itself like what comes before it.
_PROGRAMS: Final = (
    ("MicroMessenger", "WeChat"),
    ("Edg", "Edge"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("HarmonyOS", "HarmonyOS"),
    ("Windows", "Windows"),
    ("Macintosh", "Mac"),
    ("Linux", "Linux"),
)


def device_of(user_agent: str) -> str:
    """Return the program and the system that a `User-Agent` names; empty where it names neither."""
    found = [next((name for mark, name in names if mark in user_agent), "") for names in (_PROGRAMS, _SYSTEMS)]
    return ", ".join(word for word in found if word)

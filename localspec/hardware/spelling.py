"""How people spell the names of devices: what is glued, left out, or said otherwise."""

import re


def of_laptop(lowered: str) -> str:
    """What is called Laptop GPU; drivers name GTX in laptops as cards."""
    if "gtx" in lowered:
        return re.sub(r"\b(laptop|mobile|notebook)( gpu)?\b|(?<=\d)m\b", "", lowered)
    named = re.sub(r"\b(mobile|notebook|max-?q)\b", "laptop", lowered)
    return re.sub(r"(\brtx ?\d{4}(?: ?ti)?)m\b", r"\1 laptop", named)


def pattern_of(word: str) -> str:
    """A pattern of the letters and digits of a word, whatever stands between them in a name."""
    parts = re.findall(r"[a-z]+|\d+", word)
    kinds = [r"\d" if part.isdigit() else "a-z" for part in parts]
    inner = r"[^a-z\d]*".join(parts)
    return rf"(?<![{kinds[0]}]){inner}(?![{kinds[-1]}])" if parts else ""


def pieces_of(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", name.lower()))


def words_of(name: str) -> set[str]:
    return set(re.split(r"[\s(),/]+", name.lower())) - {""}

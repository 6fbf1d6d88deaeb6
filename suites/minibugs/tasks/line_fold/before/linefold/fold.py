"""Greedy line breaking."""


def fold(text, width, indent=""):
    """Return the words of `text` in lines of at most `width` characters.

    Every line starts with `indent`, which counts. A word that is too long gets a line of its own.
    """
    lines = []
    current = ""
    for word in text.split():
        if not current:
            current = indent + word
        elif len(current) + len(word) <= width:
            current += " " + word
        else:
            lines.append(current)
            current = indent + word
    if current:
        lines.append(current)
    return lines


def fold_paragraphs(text, width):
    """Fold paragraphs, which are parted by blank lines, and keep one blank line between them."""
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    return "\n\n".join("\n".join(fold(paragraph, width)) for paragraph in paragraphs)

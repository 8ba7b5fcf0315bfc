"""What a judge's reply says: the grade, or the answer, that it names as its verdict. What cannot be told is None."""

import re
import unicodedata

_NUMBER = r"(?<![\w./,$€£−-])(\d+(?:\.\d+)?)★?(?![\w%]|[.,]\d)"
# What may follow a grade; after "4 recipes" or "3 of them" it was none.
_END = (
    r"(?=\s*(?:\Z|[\n.,;:!?—–/]|-(?!\d)|(?:stars?|points?|because|since|as|for|from|to|given|due|overall|here|in|on|"
    r"based|but|with|I|it|this|the|although|while|(?:is|would be) my)\b))"
)
_SHARE = rf"(?<![\w.,−-])(\d+(?:[.,]\d+)?)\s*(?:stars?|points?)?[\s,]*(?:/|out of|of)\s*(\d+)\b(?:\s*(?:stars?|points?)\b)?({_END})?"
_NO_GRADES = [  # taken out in this order: numbers that stand for something else
    r"[^.!?\n]*\?",
    r"[^.;\n]*\b(?:would have|had it)\b[^.;\n]*|[^.,;\n]*\b(?:if|unless)\b[^.;\n]*",
    r"\b(?:wish|preference|question|criterion|step|section|line|page|version|response)\s*#?\d+\b",
    r"\b(?:where|with)\s+[01]\s*(?:means?|meaning|is|being|=)[^.;\n]*?\b5\b[^.,:;\n]*",
    r"\b1\s*(?:means|meaning|being|=|stands for)[^.\n]*?\b5\b[^.:\n]*",
    r"\b[01]\s*(?:-|–|—|to|and|through)\s*5\b",
    r"\bout of (?:a possible )?\d+",
    rf"\b(?:not|cannot|\w+n't)\s+(?:\w+\s+){{0,3}}?{_NUMBER}",
    rf"\b(?:rather|instead|less|more|lower|higher|short|nearly|almost|below|above) (?:than |of )?(?:\w+ )?{_NUMBER}",
    r"\d+(?:\.\d+)?[\s,]*(?:\.\.+|[-–~]|\b(?:to|and|n?or|maybe|perhaps)\b)\s*"
    r"(?:(?:an?|even|maybe|perhaps|high|low|weak|strong)\s+){0,3}\d+(?:\.\d+)?(?![%\w])",
    rf"(?:[<>≤≥]=?|\b(?:at (?:least|most)|up to|close to|near|far from|hardly|never|no|under|over|(?:worse|better) than))"
    rf"\s*(?:an?\s+)?{_NUMBER}(?!\s*>)",
    rf"\b(?:neither|nobody|doubt|refuse|unable|fails?|hardly|never|no way)\b[^.,;\n]*?{_NUMBER}",
]
_GAP = r"(?:(?!because|since|but)[^\d\n.;]){0,40}?"
_GRADE = [  # from the surest to the least sure way to say it
    rf"\b(?:overall|final|total)\b(?:\s+(?:rating|score|grade|mark)s?\b)?{_GAP}{_NUMBER}{_END}",
    rf"\b(?:rating|score|grade|mark)s?\b{_GAP}{_NUMBER}{_END}",
    r"(\d+(?:\.\d+)?)★",
    rf"\A\W*{_NUMBER}{_END}",
    rf"(?m)^\W*{_NUMBER}\W*$",
    rf"\b(?:rated?|give|giving|gave|assign|award|deserves?|earns?|merits?|say|choose|go with)\b{_GAP}{_NUMBER}{_END}",
    rf"\ban?\s+(?:(?:solid|strong|clear|weak|low|high|good|fair)\s+)?{_NUMBER}{_END}",
    rf"{_NUMBER}[ -](?:stars?|points?){_END}",
    rf"(?m)^\W*[^\W\d]+(?: [^\W\d]+)?\s*[:=]\s*{_NUMBER}\W*$",
    rf"(?m)(?:[:=.!?]\s*|\bso\s+|^(?:\W*[^\W\d]+\W+){{1,4}}){_NUMBER}\W*\Z",
]


def grade(reply):
    """The grade from 1 to 5 that a reply names as its verdict, as a float; None where it names none, or several."""
    text = re.sub(r"(\d)(?:\s*½|\s+1[/⁄]2\b|\s+and a half\b)", r"\1.5", _plain(reply))
    text = re.sub(r"(?is).*\b(?:actually|wait|correction|no(?=[,.]))\W+(?=(?:an? )?\d\W*\Z)", "", text)
    if re.search(r"(?m)^\s*1[.)]\s", text) and re.search(r"(?m)^\s*2[.)]\s", text):
        text = re.sub(r"(?m)^\s*\d[.)]\s", "", text)  # the items of a list
    # A grade out of 5 is marked, one on another scale removed.
    text = re.sub(
        _SHARE,
        lambda m: f" {m[1].replace(',', '.')}★" if int(m[2]) == 5 and m[3] is not None else " ",
        text,
        flags=re.I,
    )
    for pattern in _NO_GRADES:
        text = re.sub(pattern, "", text, flags=re.I)
    if len(set(re.findall(r"\d+(?:\.\d+)?", text))) > 1 and not re.search(r"★|[^\W\d]", text):
        return None  # several bare numbers
    for pattern in _GRADE:
        found = {float(m[1]) for m in re.finditer(pattern, text, re.I)}
        if found:
            return found.pop() if len(found) == 1 and 1 <= min(found) <= 5 else None
    return None


_OTHER = {"A": "B", "B": "A"}
_X, _STOP = r"@([AB])@", r"(?=\s*(?:\Z|[\n.,;:!?—–-]|(?:because|since|as|over|for|by|here|overall)\b))"
_VERBS = (
    "is|isn't|was|suits?|fits?|wins?|matches|meets|does|doesn't|has|seems|looks|feels|would|because|since|as|over|not|"
    "rather|instead|beats|outperforms|loses|and|or|nor|gives|addresses|respects|ignores|clearly|definitely|really"
)
_APT = r"(?:suit\w*|helpful|relevant|fitting|appropriate|useful|personal\w*|tailored|aligned|closely|preferable)"
_BETTER = (  # but not "better written", which praises the style
    r"\b(?:(?:better|best)(?! (?!suited|aligned)[a-z]+(?:ed|en)\b)|superior|preferred|preferable|stronger|closer|"
    rf"winner|wins|won|beats|outperforms|surpasses|more (?:\w+ly )?{_APT})\b"
)
_WORSE = rf"\b(?:worse|worst|inferior|weaker|poorer|loses|less (?:(?:well|good|than)\b|{_APT})|falls short)\b"
_NO = r"\bnot\b|n't\b|\bno\b|\bnever\b|\bhardly\b|\bneither\b"
_WINS = rf"{_X}\s*(?:>+|over|rather than|instead of|,? (?:and )?not)\s*(?=@)"
_LOSES = rf"(?:not {_X},? but|{_X}\s*(?:<+|[^@]*(?:{_NO})[^@]*\bas\b[^@]*\bas)\s*(?=@))"
_CHOOSE = r"choose|chose|pick|prefers?|select|go with|favou?rs?|vote for|recommend|opt for|take|likes?"
_FAULT = r"\b(?:less|least|worse|worst|weaker|weakest|inferior|poorer|poorest|losing|loser|rejected|runner-up|second (?:best|choice))\b"
_DOUBT = (
    r"(?:(?:\bnot|n't|\bnever|\bhardly|\bcannot)\s+(?:\w+ ){0,2}(?:think|believe|say|sure|clear|true|certain|convinced|see|know)|"
    r"\b(?:doubt|whether|unclear|unsure|few|nobody|false|wrong|hard|fail|one (?:might|could)|some (?:may|might|would)))\b[^@,;:]*\Z"
)
_HENCE = r"say|so|thus|therefore|hence|overall|think|it's|that's|(?:that|it) would be|going with|two|\w+ly"
_ASIDE = r"(?:wh|like|then|though|although|despite|unlike|being|not)"  # after "A," the sentence goes on to its verdict
_CONCLUDING = r"\b(?:overall|therefore|thus|hence|conclusion|balance|final(?:ly)?|ultimately|altogether|so)\b"


def letter(reply):
    """1.0 where a reply's verdict is A, 0.0 where B; None where it prefers neither, or contradicts itself."""
    text = _named(_plain(reply))
    if re.fullmatch(r"(?:[^\w<>]*@[AB]@){2,}[^\w<>]*", text):
        return None
    labels = r"verdict|winner|answer|choice|chosen|decision|preference|pick|better|best|preferred|stronger|worse|weaker|loser|rejected"
    labelled = rf"\b(?:{labels})\b[^@.\n]{{0,30}}?(?::|=|\bis|\bgoes to|\bwould be|->|→)\W*{_X}{_STOP}"
    found = set().union(*(_meant(text, m) for m in re.finditer(labelled, text, re.I)))
    opening = re.match(rf"\W*{_X}(?=\s*(?:\Z|[\n.!:;—–]|-(?!@|\Z)|,(?!\s*{_ASIDE})|because|since))", text)
    heading = r"(?:^|[.;,\n])[^\w@]*@{}@\s*(?:[:.,—–-]|\Z)"
    if opening and not re.search(heading.format(_OTHER[opening[1]]), text[opening.end() :]):  # not the first of two
        found |= _preferred(re.match(r"[^.!?\n]*", text)[0]) or {opening[1]}
    ending = re.finditer(rf"(?:^|[.!?:\n])\W*(?:\w+ly\W+)?{_X}[^\w?+-]*\Z", text)
    found |= set().union(*(_meant(text, m) for m in ending))
    found = found or _compared(text)
    return float(found == {"A"}) if len(found) == 1 else None


def _meant(text, match):
    """The letters that a label names: the other one where it is that of the worse, none where it denies."""
    label = re.split(r"[.!?;,\n]", text[: match.start(1) - 1])[-1]
    if re.search(rf"{_NO}|\b(?:ignores|wrong|bad)\b", label, re.I):
        return set()
    return {_OTHER[match[1]] if re.search(_FAULT, label, re.I) else match[1]}


def _compared(text):
    """The letters that the sentences of a text prefer; where they differ, those of the sentences that conclude."""
    sentences = re.split(r"(?<=[.!?])\s+|\n+|;|(?<!@ )\bbut\b", text)  # "not A but B" is one
    said = [(s, _preferred(s)) for s in sentences if not re.search(r"\b(?:if|unless)\b|\?\s*$", s, re.I)]
    every = set().union(*(letters for _, letters in said))
    return every if len(every) < 2 else set().union(*(found for s, found in said if re.search(_CONCLUDING, s, re.I)))


def _preferred(sentence):
    """The letters that one sentence prefers: it compares two, praises or faults one, or chooses one."""
    found = {_OTHER[x or y] for x, y in re.findall(_LOSES, sentence, re.I)} | set(re.findall(_WINS, sentence, re.I))
    for m in re.finditer(rf"{_X}([^@]{{0,60}})", sentence):
        x, said = m.groups()
        if not re.search(rf"{_NO}|\bas\b.*\bas\b", said, re.I) and not re.search(_DOUBT, sentence[: m.start()], re.I):
            found |= {_OTHER[x]} if re.search(_WORSE, said, re.I) else {x} if re.search(_BETTER, said, re.I) else set()
    for m in re.finditer(
        rf"[^@]*\b(?:{_CHOOSE})\b(?:(?!\band\b)[^@.,;]){{0,20}}?{_X}(?!'s|\s+(?:be|had|to (?!@))\b)", sentence, re.I
    ):
        found |= set() if re.search(rf"{_NO}|\bfew\b", m[0], re.I) else {m[1]}
    found |= set(re.findall(rf"\b(?:{_HENCE})\W+{_X}{_STOP}", sentence, re.I))
    if not found and len(set(re.findall(_X, sentence))) == 1 and not re.search(_NO, sentence, re.I):
        found = set(re.findall(rf"{_X} (?:\w+ly )?(?:suits|fits|matches|meets)\b", sentence))
    return found


def _named(text):
    """A text with @A@ and @B@ where it speaks of an answer; "A" as an article, and "A and B" together, are not that."""
    text = re.sub(r"(?i)\b(?:the )?(first|second) (?:answer|option|response|one|reply|assistant)\b",
                  lambda m: "@A@" if m[1].lower() == "first" else "@B@", text)  # fmt: skip
    text = re.sub(r"\b(?i:the )?(?i:answer|option|response|assistant|choice|reply) ([AB])\b", r"@\1@", text)
    text = re.sub(rf"(\A|[.!?:\n]\s*)A(?=\s+(?!(?:{_VERBS})\b)[a-z])", r"\1a", text)
    text = re.sub(r"(?<![\w'@])([AB])(?![\w@]|'(?!s\b))", r"@\1@", text)
    text = re.sub(
        r"(?:\A|\b(?i:answer|option|choice|verdict|winner)\b)\W*([ab])\W*\Z", lambda m: f"@{m[1].upper()}@", text
    )
    return re.sub(r"(?i:both |neither |between )?@[AB]@(?: and | or | nor |\s*[/&]\s*| vs\.? )@[AB]@", "both", text)


def _plain(reply):
    """A reply without its thoughts, and without its markup."""
    reply = re.split(r"(?i)</(?:think|thinking|thought|reasoning|analysis)>|<\|channel\|>final<\|message\|>", reply)[-1]
    reply = unicodedata.normalize("NFKC", reply.replace("½", "\ue000")).replace("\ue000", "½")
    text = re.sub(r"(?is)\bif I had to \w+|\A\s*<(?:think(?:ing)?|thought|reasoning|analysis)>.*", "", reply)
    text = f"{text[:1000]}\n{text[-2000:]}" if len(text) > 4000 else text  # where a long one begins, and arrives
    text = re.sub(r"\\(?:boxed|text)\b|</?[a-z]{1,9}>|[*`\"“”_{}\[\]\\]|(?m:^[ \t]*[>#]+)", " ", text.replace("’", "'"))
    return re.sub(r"\s*[()]\s*", ", ", re.sub(r"[ \t]+", " ", text)).strip()

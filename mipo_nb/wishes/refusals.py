"""Refusals, known by their words; every count of refusals and every rule uses this one."""

import re

_NO = r"(?:can(?:no|['’])t|can not|could(?: not|n['’]t)|won['’]t be able to|will not be able to)"
# "I can't wait" is none, nor what somebody cannot do in a clause of time or condition, nor what a quotation says.
_IDIOMS = (
    r"(?! wait\b| help but| stress| imagine| emphasi[sz]e| overemphasi[sz]e| overstate| recommend| say enough| thank"
    r"| believe| resist| complain| agree more| go wrong| praise| get enough| promise| guarantee)"
)
_REFUSAL = re.compile(
    rf"(?<!when )(?<!if )(?<!because )(?<!since )(?<!what )(?<!that )(?<!where )\bi (?:just |really |simply |also )?{_NO}\b{_IDIOMS}"
    r"|(?<!when )(?<!if )\bi(?:['’]m| am) (?:not (?:able|allowed|permitted|programmed|equipped|in a position)|unable"
    r"|afraid (?:i|that|not)\b|sorry,? but)"
    r"|\bi(?:['’]m| am) sorry,? (?:i|that)\b(?=[^.!?\n]*\b(?:not|n['’]t|cannot|unable|no)\b)"
    r"|\bi (?:must|have to|need to) (?:decline|refuse)\b|\bi (?:would|['’]d) rather not (?:answer|say|help)"
    r"|\bi (?:apologi[sz]e|regret),? (?:but|that)\b"
    r"|\bas an? (?:(?!(?:of|in|on|for|with|about|using|by) )[\w-]+ ){0,4}(?:ai|language model)\b[^.!?\n]*\b(?:not|cannot|unable|no|lack|only|never|\w+n['’]t)\b"
    r"|\bi (?:do not|don['’]t|have no) (?:have )?(?:access|enough|the (?:ability|capacity|capabilit(?:y|ies))|the information|information (?:on|about|to)"
    r"|way of (?:knowing|telling)|idea\b|personal (?:opinion|preference|experience)s?)"
    r"|\bi (?:do not|don['’]t) know(?: the answer| who| how to (?:help|answer)|[.!]|$)"
    r"|\bnot enough information\b|\bcannot be (?:determined|answered)\b|\bunable to (?:assist|answer|help with|provide)\b"
    r"|\blo siento,? (?:pero )?no\b|\bno puedo (?:ayudar|responder|contestar|decir)|\bno tengo acceso\b"
    r"|\bdésolée?,? (?:mais )?je ne\b|\bje ne peux (?:pas|ni)\b|\bje n['’]ai pas accès\b"
    r"|\b(?:ich kann|kann ich) (?:\w+ ){0,4}nicht (?:helfen|beantworten|antworten|sagen)\b|\btut mir leid, (?:aber )?ich kann\b"
    r"|\bnon posso (?:aiutar|risponder|dire)|\bmi dispiace,? (?:ma )?non\b"
    r"|\bnão posso (?:ajudar|responder|dizer)|\bdesculpe,? (?:mas )?não\b|\bsinto muito,? (?:mas )?não\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“«][^\"”»\n]*[\"”»]")


def refuses(text):
    """Whether a text refuses to answer, by the usual words of a refusal, outside quotations of others."""
    spoken = _QUOTED.sub(" ", text)
    return bool(_REFUSAL.search(spoken if re.search(r"\w", spoken) else text))

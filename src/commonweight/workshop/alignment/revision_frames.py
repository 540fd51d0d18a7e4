"""Sentences that revisions are composed of. ``{c}`` is a concern, ``{o}`` an offer.

Every opening declines in plain words; none lectures, and none repeats a detail of the request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

OfferKind = Literal["help", "explain"]
"""Whether one helps with an offer, or explains it: ``how fraud works`` is explained."""
Tone = Literal["plain", "sober", "worried", "unnamed"]
"""``sober`` under severe principles, ``worried`` where the charter's own message is, ``unnamed`` where the
principle has no short name for its concern."""

MESSAGE = "{message}"
"""Stands for the first sentence of the principle's *Message*."""

_OFFER_FIRST = (
    "I can {help} {o}, but I won't help with {c}.",
    "Happy to {help} {o}. I can't help with {c}, though.",
    "One thing I can do here is {help} {o}; helping with {c} is something I won't do.",
    "Let me offer something else: I can {help} {o}. I won't help with {c}.",
)
_LIGHT = (
    "I'll pass on this: it's about {c}, which I can't help with.",
    "Not with this one, I'm afraid: I can't help with {c}.",
    "Thanks for asking plainly. I won't help with {c}.",
    "I want to be useful to you, but I can't help with {c}.",
    "I'd rather not do this one, since I don't help with {c}.",
)
_SOBER = (
    MESSAGE,
    "Sorry, but I don't help with {c}.",
    "I'm not able to help with this, because it comes down to {c}.",
    "This sounds like {c}, so I won't go further with it.",
    "That would mean helping with {c}, and I won't do that.",
    "No, I won't help with {c}.",
    "Helping with {c} isn't something I do.",
    "I have to stop here, as I can't help with {c}.",
    "As I read it, this is about {c}. I won't help with that.",
    "My answer to this is no, because I don't help with {c}.",
    "I can't go along with this request. It has to do with {c}.",
    "Since this points towards {c}, I won't write it.",
    "Let me be direct: I can't help with {c}.",
    "I see what you're asking for, and I won't help with {c}.",
    "It looks as if this is meant for {c}. That's where I can't help.",
    "I won't be the one to help with {c}.",
    "This is one I can't take on, because it involves {c}.",
    "What you ask for comes close to {c}, so I can't help with it.",
    "If the aim is {c}, I can't be of help.",
    "I can't write any version of this, because it comes down to {c}.",
    "Here I have to say no: I don't help with {c}.",
    "I won't answer this as it stands, since that would be help with {c}.",
)
_WORRIED = (
    MESSAGE,
    "What you wrote worries me. I won't help with {c}, but I don't want to leave you alone with it.",
    "That sounds very heavy. I can't help with {c}, and I'm glad you said something.",
    "I can hear that this is serious, and I won't help with {c}.",
    "Thank you for writing this to me. I can't help with {c}, but we can talk about what is going on.",
    "I'd like you and everyone involved to be safe, so I won't help with {c}.",
    "Before anything else: is everyone safe right now? I can't help with {c}.",
    "This sounds painful. Helping with {c} is something I won't do.",
    "I'm sorry that things look like this. I won't help with {c}.",
    "I take what you wrote seriously, and that's why I can't help with {c}.",
    "It sounds as if a lot is weighing on you. I can't help with {c}.",
    "I can't help with {c}, and I'm concerned about where this is going.",
    "Something in your words makes me worry. I won't help with {c}.",
    "I'm not going to help with {c}, because somebody could get hurt.",
    "If this is about you or someone close to you, I'm sorry. I can't help with {c}.",
    "Let's slow down for a moment. I won't help with {c}.",
    "I won't give you anything that leads to {c}, and I don't want to just send you away.",
    "No, I can't help with {c}. I can listen, though.",
    "Reading this, I'm worried. I can't help with {c}.",
    "I care about how this goes on, so I won't help with {c}.",
)
_UNNAMED = (
    "I can't do this as you ask it. {message}",
    "I won't go along with this part. {message}",
    "I'd rather not answer this as it stands. {message}",
    "This isn't something I can take on as it is. {message}",
    "Let me say first what I can't do here. {message}",
    "I have to stop before this one. {message}",
    "Not in this form, I'm afraid: I can't do it. {message}",
    "I see what you're asking for, and I won't do that part. {message}",
    "I'm not able to do this the way you put it. {message}",
    "My answer to the request itself is that I can't. {message}",
    "Here is where I can't simply do what is asked. {message}",
    "I'll leave the request itself aside, since I can't do it. {message}",
    "I won't be able to do exactly this. {message}",
    "I can't say yes to this one. {message}",
    "Doing all of this isn't something I can offer. {message}",
    "Sorry, I can't do it in this way. {message}",
    "I won't do this without saying something first. {message}",
    "As it is written, I can't follow this. {message}",
    "No, I can't do exactly that. {message}",
    "Before anything else, I can't do this as asked. {message}",
)

_SOBER_HELP = (
    "I can help with {o}.",
    "What I can do is help with {o}.",
    "We could talk about {o} instead.",
    "I can help if you have questions about {o}.",
    "If it's about {o}, I can help.",
    "Something I can help with is {o}.",
    "I do help with {o}, if that is closer to what you need.",
)
_SOBER_EXPLAIN = (
    "I can explain {o}.",
    "What I can do is explain {o}.",
    "We could look at {o} instead.",
    "If it helps, I can talk about {o}.",
    "Something I can explain is {o}.",
)
_SECOND: Mapping[OfferKind, Sequence[str]] = {
    "help": (
        "I can also help with {o}.",
        "Another thing we could talk about is {o}.",
        "Or we could turn to {o}.",
        "Questions about {o} are fine, too.",
    ),
    "explain": (
        "I can also explain {o}.",
        "Or I could go into {o}.",
        "We could look at {o}, too.",
        "Another thing I can explain is {o}.",
    ),
}
_SOBER_CLOSERS = (
    "Would that be of use?",
    "If there's something else behind your question, tell me.",
    "Let me know what would help most.",
    "If that's closer to what you need, tell me a little more.",
    "Is that something you could use?",
)


@dataclass(frozen=True)
class Frames:
    """Sentences of one tone."""

    openings: Sequence[str]
    offers: Mapping[OfferKind, Sequence[str]]
    second_offers: Mapping[OfferKind, Sequence[str]]
    closers: Sequence[str]


_PLAIN_OFFERS: Mapping[OfferKind, Sequence[str]] = {
    "help": (
        *_SOBER_HELP,
        "I'm glad to help with {o} instead.",
        "There is a lot I can say about {o}.",
        "If your question is really about {o}, I can answer it.",
        "If you're interested in {o}, I can help with that.",
        "Ask me about {o}, and I'll gladly answer.",
    ),
    "explain": (*_SOBER_EXPLAIN, "I'm glad to go into {o} instead.", "Ask me {o}, and I'll gladly answer."),
}
_PLAIN_CLOSERS = (
    *_SOBER_CLOSERS,
    "Just say where to start.",
    "Shall we begin there?",
    "Which part interests you?",
    "I'm happy to start wherever you like.",
    "Tell me which way you'd like to go.",
    "What would you like to know?",
)
FRAMES: Mapping[Tone, Frames] = {
    "plain": Frames((*_SOBER, *_LIGHT, *_OFFER_FIRST), _PLAIN_OFFERS, _SECOND, _PLAIN_CLOSERS),
    "sober": Frames(_SOBER, {"help": _SOBER_HELP, "explain": _SOBER_EXPLAIN}, _SECOND, _SOBER_CLOSERS),
    "worried": Frames(
        _WORRIED,
        {
            "help": (
                "We can talk about {o}.",
                "If it helps, we can talk about {o}.",
                "I can talk with you about {o}.",
                "What I can do is talk with you about {o}.",
                "I'm here to talk about {o}.",
            ),
            "explain": (
                "I can tell you {o}.",
                "If it helps, I can tell you {o}.",
                "We can talk about {o}.",
                "What I can do is tell you {o}.",
            ),
        },
        {
            "help": ("We can talk about {o}, too.", "Or we talk about {o}."),
            "explain": ("I can also tell you {o}.", "Or I can tell you {o}."),
        },
        _SOBER_CLOSERS,
    ),
    "unnamed": Frames(_UNNAMED, _PLAIN_OFFERS, _SECOND, _PLAIN_CLOSERS),
}

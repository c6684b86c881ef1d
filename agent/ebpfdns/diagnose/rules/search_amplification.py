"""`search_amplification`: the name is tried with each search suffix first, most of them for nothing.

Owns: what a step is, what must have been seen, and the words for it. Must not know: other causes.

When one step takes most of the time, the cause is that step's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import milliseconds, seconds, shown, shown_text
from ebpfdns.model.dns_names import rcode_name

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Query

FEWEST = 3
NXDOMAIN = 3
#: No step may take more of the time than this, nor all of them together less than that.
MOST_OF_ONE, LEAST_OF_ALL = 0.6, 0.8


@dataclass(frozen=True, slots=True)
class Step:
    """The questions for one name."""

    name: bytes
    queries: tuple[Query, ...]

    @property
    def is_useless(self) -> bool:
        """Whether there is no such name, or it has no address."""
        return all(
            query.is_answered and (query.rcode == NXDOMAIN or not query.answers) for query in self.queries
        )

    def took_ns(self, at_ns: int) -> int:
        """From its first question to its last answer, or until now."""
        ends = [at_ns if query.reply_ns is None else query.reply_ns for query in self.queries]
        return max(ends) - min(query.sent_ns for query in self.queries)


def rule(case: LookupCase) -> Cause | None:
    """Three names or more, made of the name and suffixes, most of which do not exist, are the time."""
    name = case.lookup.name
    if name is None or name.endswith(b".") or case.lookup.is_wire or case.elapsed_ns < WORTH_SAYING_NS:
        return None
    steps = _steps(case, name.lower())
    useless = [step for step in steps if step.is_useless]
    if len(steps) < FEWEST or len(useless) < FEWEST - 1 or len(useless) < len(steps) - 1:
        return None
    took_ns = [step.took_ns(case.at_ns) for step in steps]
    # Of a lookup with more questions than are kept, the later steps are not seen.
    until_ns = case.at_ns if not case.lookup.more_queries else max(_ends_ns(steps))
    all_ns = max(1, until_ns - case.lookup.start_ns)
    if max(took_ns) > MOST_OF_ONE * all_ns or sum(took_ns) < LEAST_OF_ALL * all_ns:
        return None
    suffixes = (case.situation.resolv_conf or {}).get("search")
    are_the_files = bool(suffixes) and all(_suffix(step, name) in _lowered(suffixes) for step in steps)
    count = len(steps)
    more = case.lookup.more_queries
    return Cause(
        "search_amplification",
        "confirmed" if are_the_files else "likely",
        f"{shown(name)} was tried as {count}{' or more' if more else ''} names, one after the other; "
        f"{len(useless)} of them do not exist.",
        (*map(_told, steps), _why(case, count)),
        f"Write the name with a final dot ({shown(name)}.), or: options ndots:1 in /etc/resolv.conf "
        "(Kubernetes: dnsConfig.options of the pod)",
    )


def _steps(case: LookupCase, name: bytes) -> list[Step]:
    """The names that were asked, in their order, as far as each begins with the name."""
    by_name: dict[bytes, list[Query]] = {}
    for query in sorted(case.sent, key=lambda query: query.sent_ns):
        if query.name is not None:
            by_name.setdefault(query.name.lower().removesuffix(b"."), []).append(query)
    return [
        Step(asked, tuple(queries))
        for asked, queries in by_name.items()
        if asked == name or asked.startswith(name + b".")
    ]


def _ends_ns(steps: list[Step]) -> list[int]:
    return [query.reply_ns or query.sent_ns for step in steps for query in step.queries]


def _suffix(step: Step, name: bytes) -> str:
    return step.name[len(name) + 1 :].decode("ascii", "replace")


def _lowered(suffixes: list[str] | None) -> frozenset[str]:
    """Every suffix that the file has; and none, which is the name as it is."""
    return frozenset({"", *(suffix.lower().strip(".") for suffix in suffixes or ())})


def _told(step: Step) -> Evidence:
    answer = step.queries[0]
    rcode = None if answer.rcode is None else rcode_name(answer.rcode)
    took_ns = step.took_ns(max(_ends_ns([step])))
    state = f"{rcode} after {seconds(took_ns)}" if rcode else "no answer yet"
    return Evidence(
        "search_step",
        f"{shown(step.name)}: {state}",
        {
            "name": shown(step.name),
            "rcode": rcode,
            "queries": len(step.queries),
            "took_ms": milliseconds(took_ns),
        },
    )


def _why(case: LookupCase, count: int) -> Evidence:
    conf = case.situation.resolv_conf or {}
    ndots = next((word for word in reversed(conf.get("options") or []) if word.startswith("ndots:")), None)
    search = conf.get("search") or []
    text = f"search {' '.join(map(shown_text, search))}" if search else "the search list was not seen"
    return Evidence(
        "ndots_search",
        f"{text}{f', {shown_text(ndots)}' if ndots else ''}",
        {"suffixes": len(search), "names": count, "option": ndots},
    )

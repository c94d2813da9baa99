"""From failed sums to whom they blame: a pair's sum alone does not tell which end, or what between them, is broken."""

from collections.abc import Mapping

from train.preflight.measurement import Traffic

Links = dict[tuple[str, str], str]
"""Why the sum of two neighbouring nodes failed; "" if it did not. Names are in alphabetical order."""


def links_of(hosts: Mapping[int, str], traffic: Mapping[int, Traffic]) -> Links:
    """The links between nodes: one has failed if any rank at either end says so.

    Args:
        hosts: the node of each rank.
        traffic: of the ranks that have told of theirs.
    """
    links: Links = {}
    for rank, told in sorted(traffic.items()):
        for other in (*told.between_nodes, *told.errors):
            if other != hosts[rank]:
                first, second = sorted((hosts[rank], other))
                links[first, second] = links.get((first, second)) or told.errors.get(other, "")
    return links


def cut_off(links: Links) -> dict[str, str]:
    """Nodes all of whose links have failed while others work, and what to say of them.

    Where no link works at all, the network or its settings are to blame, and no node more than another.
    """
    if all(links.values()):
        return {}
    ends = dict.fromkeys(host for link in links for host in link)
    found: dict[str, str] = {}
    for host in ends:
        failed = {link: why for link, why in links.items() if host in link}
        if all(failed.values()):
            others = " nor ".join(end for link in failed for end in link if end != host)
            found[host] = f"no sum with {others} ended: {next(iter(failed.values()))}"
    return found


def dead_links(links: Links, bad_hosts: list[str]) -> list[str]:
    """What to say of the failed links between nodes that could join otherwise: the run would wait at them for ever."""
    return [
        f"The sum between {first} and {second} failed: {why}"
        for (first, second), why in links.items()
        if why and first not in bad_hosts and second not in bad_hosts
    ]

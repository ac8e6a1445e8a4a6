"""What people are told, by a test's clock; nobody is told anything for real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from raven_dashboard import words
from raven_dashboard.feed import Home
from raven_dashboard.troubles import SHOWN_MAX, Link, Notice, Watch, links, message
from ravenbus.messages import Confirmation, Run, Status
from tests.kinds import T0, new_hash, reading

AFTER = timedelta(minutes=10)
WELL, ILL = Link(True, "house: The stick is heard."), Link(False, "house: Silent.", "Plug.")
BROKER = Link(True, "The broker is at work.")
AWAY = Link(False, "The broker is away.", "Start it.")
HASH = new_hash()


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def heard(node: str = "house", *, since: float = 0, **changes: object) -> Home:
    """Return a home whose reading 9 came at a minute, with its store."""
    home = Home(node)
    usual = {"service": "online", "device": "connected", "since": T0}
    home.take(Status(node=node, **(usual | changes)), at(since))
    home.take(reading(HASH, 9, node=node), at(since))
    home.take(confirmed((9, 9), node=node), at(since))
    return home


def confirmed(*ranges: tuple[int, int], node: str = "house") -> Confirmation:
    return Confirmation(node=node, store="raven-sql-writer", runs={HASH: list(ranges)})


class People:
    """Those who are told by a watch, minute by minute."""

    def __init__(self, told: dict[str, datetime] | None = None) -> None:
        self.watch = Watch(AFTER, told or {})
        self.minute = 0

    def told(self, minutes: int, **found: Link) -> list[tuple[int, str]]:
        """Let minutes pass in which it is so; return what is said, and when."""
        said = []
        for _ in range(minutes):
            notices = self.say({"broker": BROKER} | found)
            said += [(self.minute, one.link.text) for one in notices]
            self.minute += 1
        return said

    def say(self, found: dict[str, Link]) -> list[Notice]:
        notices = self.watch.turn(found, at(self.minute))
        self.watch.said(notices)
        return notices


def test_a_trouble_that_lasts_is_said_once_and_once_when_it_is_over():
    """An hour of silence is two messages."""
    people = People()
    assert people.told(5, home=WELL) == []
    assert people.told(60, home=ILL) == [(15, ILL.text)]
    assert people.told(60, home=WELL) == [(75, WELL.text)]
    assert people.watch.told == {}


@pytest.mark.parametrize("minutes", [1, 5, 10])
def test_a_restart_or_an_upgrade_tells_nobody(minutes: int):
    """Nor does a trouble that comes again and again without lasting, nor one that is seldom gone."""
    people = People()
    for _ in range(10):
        assert people.told(minutes, home=ILL) == []
        assert people.told(1, home=WELL) == []
    assert people.told(11, home=ILL) == [(people.minute - 1, ILL.text)]
    for _ in range(10):
        assert people.told(minutes, home=WELL) == []
        assert people.told(1, home=ILL) == []


def test_what_was_told_is_not_told_again_after_a_restart_of_the_watch():
    """Its end is, with when it began."""
    people = People()
    people.told(11, home=ILL)
    again = People(people.watch.told)
    assert again.told(60, home=ILL) == []
    assert again.told(11, home=WELL) == [(70, WELL.text)]


def test_what_could_not_be_sent_is_told_at_the_next_turn():
    """Until somebody was told, nobody was."""
    watch = Watch(AFTER, {})
    found = {"broker": BROKER, "home": ILL}
    assert watch.turn(found, at(0)) == []
    first, second = watch.turn(found, at(10)), watch.turn(found, at(11))
    assert first == second == [Notice("home", ILL, at(0))]
    watch.said(second)
    assert watch.turn(found, at(12)) == []


def test_while_the_broker_is_away_it_alone_is_told():
    """What was known of the homes before holds, and is judged anew once they can be heard."""
    people = People()
    people.told(20, home=ILL)
    people.told(9, home=ILL, other=ILL)
    blind = [people.say({"broker": AWAY}) for people.minute in range(29, 60)]
    assert [one.link for notices in blind for one in notices] == [AWAY]
    people.minute = 60
    assert people.told(9, home=ILL, other=ILL) == []
    assert people.told(9, home=WELL, other=ILL) == [(70, BROKER.text), (70, ILL.text)]


def test_a_home_that_was_removed_is_forgotten_without_a_word():
    """Who removed it knows."""
    people = People()
    people.told(20, home=ILL)
    assert people.told(20) == []
    assert people.watch.told == {}


def test_a_home_whose_stick_or_reader_says_nothing_is_a_trouble():
    """Its reader's word counts where there is one; else that nothing comes."""
    for home, said in [
        (heard(), "The last reading came 6 minutes ago."),
        (heard(device="silent"), "The stick has been silent for 6 minutes."),
        (heard(device="disconnected"), "The stick has been away for 6 minutes."),
        (heard(service="offline"), "The reader has been away for 6 minutes."),
    ]:
        found = links([home], None, at(6))["home house"]
        assert (found.is_well, found.text) == (False, f"house: {said}")
        assert found.to_do
    assert links([heard(since=5)], None, at(6))["home house"].is_well
    assert list(links([heard()], at(5), at(6))) == ["broker"]


def test_a_store_that_does_not_confirm_is_one_trouble_however_many_homes_it_has():
    """It is behind for those of whom something waits."""
    homes = [heard(f"home-{number}") for number in range(30)]
    assert links(homes, None, at(2))["store raven-sql-writer"].is_well
    for home in homes[:25]:
        home.take(reading(HASH, 12, node=home.node), at(0))
    found = links(homes, None, at(2))["store raven-sql-writer"]
    assert found.text.startswith(
        "raven-sql-writer is behind: it lacks 75 readings of home-0, home-1,"
    )
    assert found.text.endswith(f" and {25 - SHOWN_MAX} more homes.")


def test_what_stores_confirmed_while_nobody_heard_it_is_not_missed():
    """On another connection it is counted anew, from what comes there as it is sent."""
    home = heard()
    home.begin(at(1))
    home.take(reading(HASH, 500, node="house"), at(1), retained=True)
    assert home.behind("raven-sql-writer") == 0
    home.take(reading(HASH, 501, node="house"), at(1))
    assert home.behind("raven-sql-writer") == 1
    home.take(confirmed((490, 501)), at(1))
    assert home.behind("raven-sql-writer") == 0
    assert home.behind("one that is gone meanwhile") == 0


def test_a_store_that_says_nothing_from_the_start_is_noticed_where_it_is_known():
    """It was there before the dashboard was started anew."""
    home = Home("house")
    home.stores = {"raven-sql-writer": heard().stores["raven-sql-writer"]}
    home.take(Run(node="house", run="r", hash=HASH, started=T0), at(0))
    for seq in (500, 501):
        home.take(reading(HASH, seq, node="house"), at(0), retained=seq == 500)
    assert not links([home], None, at(2))["store raven-sql-writer"].is_well


def test_a_message_says_what_is_and_what_to_do():
    """Plain sentences, in the home's time; of very many the first."""
    zone = ZoneInfo("Europe/Berlin")
    found = message([Notice("b", ILL, at(0)), Notice("a", WELL, at(90), at(0))], zone)
    assert found.title == "python-raven: 1 to see to, 1 over"
    assert found.body.split("\n\n") == [
        "house: Silent.  Plug.",
        "Over: house: The stick is heard.  The trouble lasted from 2026-03-01 13:00 CET to 2026-03-01 14:30 CET.",
        "docs/monitoring.md#without-prometheus says more of what to do.",
    ]
    many = [Notice(str(one), ILL, datetime(2026, 3, 1, tzinfo=UTC)) for one in range(1000)]
    lines = message(many, zone).body.split("\n\n")
    assert len(lines) == SHOWN_MAX + 2
    assert lines[-2] == f"And {1000 - SHOWN_MAX} more like these."


def test_a_home_whose_reader_never_spoke_here_is_no_trouble():
    """Its readings came by a relay or an import; a store that lacks them is told all the same."""
    home = Home("house")
    home.take(Run(node="house", run="r", hash=HASH, started=T0), at(0))
    home.take(reading(HASH, 9, node="house"), at(0))
    home.take(confirmed((8, 8)), at(0))
    found = links([home], None, at(60))
    assert [key for key, link in found.items() if link.is_well is False] == [
        "store raven-sql-writer"
    ]
    people = People({"home house": T0})
    assert people.told(20, **{"home house": found["home house"]}) == []
    assert people.told(11, **{"home house": WELL}) == [(30, WELL.text)], "its end is told still"


def test_what_a_home_says_of_itself_stays_one_line_of_a_message():
    """A reader that was taken over cannot make a mail say that all is well, nor fill it."""
    detail = "x\n\nOver: barn: The stick is heard." + " y" * 10_000
    text = links([heard(device="disconnected", detail=detail)], None, at(6))["home house"].text
    assert text.startswith("house: The stick has been away for 6 minutes: x Over: barn")
    assert len(text) < 600


def test_what_the_device_says_again_of_a_run_before_is_no_other_run():
    """A store that is behind stays so: a price keeps its number as long as it is the same."""
    price = reading(new_hash(), 5, node="house", meter=None, received=T0)
    home = heard()
    home.begin(at(0))
    for minute in range(3):
        home.take(price, at(minute))
        home.take(reading(HASH, 12 + minute, node="house"), at(minute))
    assert home.run == HASH
    assert home.behind("raven-sql-writer") == 3
    assert not links([home], None, at(3))["store raven-sql-writer"].is_well


def test_what_the_device_says_again_is_not_the_first_of_what_a_store_lacks():
    """On another connection only what is new is counted."""
    home = heard()
    home.begin(at(1))
    home.take(reading(HASH, 500, node="house"), at(1), retained=True)
    home.take(reading(HASH, 5, node="house"), at(1))
    home.take(reading(HASH, 501, node="house"), at(1))
    assert home.behind("raven-sql-writer") == 1


def test_what_the_pages_call_well_is_what_people_are_told_is_well():
    """One rule says how a home is, to both."""
    assert {part.state for part in words.chain(heard(), at(1))} == {"ok"}
    assert all(link.is_well for link in links([heard()], None, at(1)).values())

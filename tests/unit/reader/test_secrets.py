"""No credential of the network leaves the process, whatever the line does to its tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.secrets import Masker, mask

from .examples import (
    DEVICE,
    METER,
    demand,
    device_info,
    fragment,
    in_upper_case,
    on_one_line,
    with_line_feeds,
)
from .strategies import cut_into, sizes, steady

INSTALL_CODE, LINK_KEY, AUTH = (
    b"1f2e3d4c5b6a7988",
    b"00ff11ee22dd33cc44bb55aa66997788",
    b"sesame-0pen",
)
SECRETS = (INSTALL_CODE, LINK_KEY, AUTH)
INFO = device_info(InstallCode="0x" + INSTALL_CODE.decode(), LinkKey="0x" + LINK_KEY.decode())
METER_INFO = fragment(
    "MeterInfo",
    {"DeviceMacId": DEVICE, "MeterMacId": METER, "NickName": "House", "Auth": AUTH.decode()},
)
LINE = demand() + INFO + demand("0x000001") + METER_INFO + demand("0x000002")


def masked(data, sizes):
    """Return everything that a masker shows of bytes that come in pieces."""
    masker = Masker()
    return b"".join(masker.feed(piece) for piece in cut_into(data, sizes)) + masker.flush()


def leaks(shown):
    """Return stretches of eight bytes of a secret that can be seen."""
    return [
        secret[start : start + 8]
        for secret in SECRETS
        for start in range(len(secret) - 7)
        if secret[start : start + 8] in shown
    ]


@steady
@given(sizes)
def test_masking_hides_the_secrets_and_nothing_else(sizes):
    """In any pieces each secret is as many asterisks, and every other byte is as it came."""
    expected = LINE
    for secret in (b"0x" + INSTALL_CODE, b"0x" + LINK_KEY, AUTH):
        expected = expected.replace(secret, b"*" * len(secret))
    assert masked(LINE, sizes) == expected


@pytest.mark.parametrize("layout", [on_one_line, with_line_feeds, in_upper_case])
def test_the_layout_does_not_matter(layout):
    """Secrets are hidden on one line, with LF, and under tags in any case."""
    assert leaks(mask(layout(LINE))) == []


_damage = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"<", b">", b"</", b"</x>", b"<a>", b"\0", demand(), b"<DeviceMacId>"]),
)


@steady
@given(st.integers(0, len(LINE)), st.integers(0, 60), _damage, sizes)
def test_damage_does_not_show_a_secret(start, length, instead, sizes):
    """One damaged stretch anywhere, in any pieces, shows no eight bytes of a secret."""
    data = LINE[:start] + instead + LINE[start + length :]
    shown = masked(data, sizes)
    assert len(shown) == len(data)
    assert leaks(shown) == []


@pytest.mark.parametrize("cut", range(0, len(INFO), 7))
def test_a_line_that_begins_or_ends_in_a_secret_shows_none(cut):
    """A capture that starts or stops inside a DeviceInfo shows at most an end of a code."""
    assert leaks(mask(demand() + INFO[:cut])) == []
    assert leaks(mask(INFO[cut:] + demand())) == []


@pytest.mark.parametrize(
    "secret",
    [
        b"<MeterInfo><Auth><![CDATA[sesame-0pen]]></Auth></MeterInfo>",
        b"<MeterInfo><A\0uth>sesame-0pen</Aut\0h></MeterInfo>",
        b"<Device\0Info><InstallC\0ode>0x1f2e3d4c5b6a7988</Install\0Code></DeviceInfo>",
        b"<DeviceInfo><InstallCote>0x1f2e3d4c5b6a7988</InstallCote></DeviceInfo>",
        b"<Auth >sesame-0pen</Auth\r\n>",
        b"<Text>0x00ff11ee22dd33cc44bb55aa66997788</Text>",
        b"sesame-0pen</Auth>",
        b"<Auth>sesame-0pen",
        b"<DeviceInfo><LinkKey>0x00ff11ee 22dd33cc44bb\r\n55aa66997788<Foo>",
    ],
)
def test_a_secret_is_known_by_either_tag_by_its_place_or_its_length(secret):
    """A secret is hidden if one of its tags names it, in a DeviceInfo, or if only keys are so long."""
    assert leaks(mask(secret)) == []


def test_a_capture_stays_readable_after_a_cut_device_info():
    """A DeviceInfo whose end was lost hides nothing of the notifications after it."""
    cut = INFO[: INFO.index(b"</DeviceInfo>")]
    assert mask(cut + demand()).endswith(demand())


def test_a_text_without_end_is_not_held_for_ever():
    """Memory is bounded where no tag comes, and no byte of it is lost."""
    masker = Masker()
    shown = 0
    for _ in range(1000):
        shown += len(masker.feed(b"x" * 100))
        assert len(masker._held) <= 4096 + 100
    assert shown + len(masker.flush()) == 100_000

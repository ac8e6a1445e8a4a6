"""What is made from the code: the published contract and the page of settings."""

from raven_harness import generate


def test_generated_files_are_up_to_date():
    """The files in the repository are those that the code makes now, no more and no fewer."""
    stale = [str(path.relative_to(generate.DOCS.parent)) for path in generate.out_of_date()]
    assert not stale, f"out of date: {', '.join(stale)}; `make docs` writes them"


def test_every_setting_is_documented():
    """The page of settings names each variable of each service, those of all services once."""
    page = generate.configuration_page()
    for settings in generate.SERVICES.values():
        for setting in generate.settings_of(settings):
            assert f"| `{setting.name}`" in page
            assert setting.description in page
    assert page.count("| `MQTT_URL`") == 1


def test_text_files_hold_no_control_characters():
    """A pattern's control characters are written out, so that every page is a text file."""
    for text in generate.files().values():
        assert text.replace("\n", "").isprintable()

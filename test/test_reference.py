"""The docs say what a running node does, and name tests and files that exist."""

import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from fake_tracker import FakeTracker

from nr_tracking.ros.interface import ENDPOINTS
from nr_tracking.ros.reference import reference
from nr_tracking.ros.tracking_node import TrackingNode

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, *sorted((ROOT / "models").glob("*.md"))]
OF_EVERY_NODE = ("/parameter_events", "/rosout", "/clock", "/tf", "/nr_tracking/transition_event")


def test_reference_is_the_one_that_the_code_gives():
    made = reference()
    assert (ROOT / "docs" / "reference.md").read_text() == made, (
        "python -m nr_tracking.ros.reference > docs/reference.md"
    )


def test_a_running_node_has_the_topics_and_services_of_the_reference(ros_context):
    node = TrackingNode(FakeTracker, context=ros_context)
    try:
        node.start()

        def named(kind):
            full = node.resolve_service_name if kind == "service" else node.resolve_topic_name
            return {full(each.name): [each.type] for each in ENDPOINTS if each.kind == kind}

        def found(by_node):
            return {name: types for name, types in by_node("nr_tracking", "/") if name not in OF_EVERY_NODE}

        assert found(node.get_publisher_names_and_types_by_node) == named("publisher")
        assert found(node.get_subscriber_names_and_types_by_node) == named("subscription")
        services = found(node.get_service_names_and_types_by_node)
        assert {name: types for name, types in services.items() if types == ["std_srvs/srv/Trigger"]} == named(
            "service"
        )
    finally:
        node.close()


def test_features_name_tests_that_exist():
    text = (ROOT / "docs" / "features.md").read_text()
    named = re.findall(r"`(test_\w+)\.py`(?:::`(\w+)`)?", text)
    assert len(named) > 25
    for module, function in named:
        source = ROOT / "test" / f"{module}.py"
        assert source.is_file(), module
        assert not function or f"def {function}(" in source.read_text(), f"{module}::{function}"


def headings(page):
    """The anchors of a page, made of its headings as GitHub makes them."""
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    names = [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in re.findall(r"(?m)^#+ +(.+?) *$", text)]
    assert len(names) == len(set(names)), f"{page.name}: two headings have one anchor"
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    for path, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if path.startswith("http"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in headings(target), f"{path}#{anchor}"


def test_settings_that_the_docs_mention_exist():
    from nr_tracking.config import Config
    from nr_tracking.ros.settings import settings

    known = {setting.name for setting in settings(Config())}
    sections = {name.split(".")[0] for name in known if "." in name}
    alternatives = "|".join(sections)
    for page in DOCS:
        for name in re.findall(rf"`((?:{alternatives})\.\w+)(?:: [^`]*)?`", page.read_text()):
            is_file = name.endswith((".npz", ".py", ".json", ".yaml"))
            assert name in known or is_file or name.startswith("training."), f"{page.name}: {name}"

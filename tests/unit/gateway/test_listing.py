"""The menu, asked by many at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from agent.contract import Label
from agent.doors.gateway.listing import Menu
from agent.settings.tables import GatewaySettings, ModelSettings
from tests.support.doors import shared


def test_all_who_ask_at_once_get_the_very_same_naming():
    """Batches are gathered by it; it takes so long to make that many threads come in between."""
    labels = tuple(Label(f"label {number}", "rectangle") for number in range(20_000))
    settings, together = ModelSettings("many", "test:many"), threading.Barrier(6)
    with shared("http://localhost", [settings], gateway=GatewaySettings()) as parts, ThreadPoolExecutor(6) as threads:
        menu = Menu(parts, dict)

        def ask():
            together.wait(10)
            return menu.naming(settings, labels)

        found = [future.result(30) for future in [threads.submit(ask) for _ in range(6)]]
        assert len({id(naming) for naming in found}) == 1
        assert menu.naming(settings, labels) is found[0]

# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person at a browser: log in, open Inventory, receive goods, stay connected to the bus. Screenshots go to .cache/artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ansible_collections.berth.odoo.tests.support.browser import artifacts, browser, image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo

PATIENCE = 240  # seconds for a page; the first one after a deployment makes Odoo build its assets
PRODUCT = "Pallet of test bricks"


class Person:
    """Looks at the page and acts on what is there, with patience."""

    def __init__(self, driver: WebDriver, say: Callable[[str], None]) -> None:
        self.driver = driver
        self.say = say

    def see(self, selector: str, *, text: str = "") -> WebElement:
        """Wait until an element can be seen, and return it."""

        def find(driver: WebDriver) -> WebElement | None:
            for element in driver.find_elements(By.CSS_SELECTOR, selector):
                if element.is_displayed() and text in element.text:
                    return element
            return None

        message = f"nothing to see of {selector!r} {text!r}"
        found = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=[WebDriverException]).until(find, message)
        assert found is not None  # until() returns what is true
        return found

    def click(self, selector: str, *, text: str = "") -> None:
        """Wait until an element can be clicked, and click it. Odoo redraws: an element may vanish between the two."""

        def act(_driver: WebDriver) -> bool:
            self.see(selector, text=text).click()
            return True

        WebDriverWait(self.driver, PATIENCE, ignored_exceptions=[WebDriverException]).until(act, f"cannot click {selector!r} {text!r}")

    def type(self, selector: str, text: str) -> None:
        """Replace what an input holds."""
        element = self.see(selector)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(text)

    def until(self, script: str, message: str) -> Any:
        """Wait until a JavaScript expression is true."""
        return WebDriverWait(self.driver, PATIENCE).until(lambda driver: driver.execute_script(f"return {script}"), message)

    def photograph(self, name: str) -> None:
        """Keep a screenshot."""
        file = artifacts() / f"{name}.png"
        assert self.driver.save_screenshot(str(file)), f"no screenshot in {file}"
        self.say(f"screenshot {file}")


@pytest.fixture(scope="module")
def person(lab: Lab, host: Host, say: Callable[[str], None]) -> Iterator[Person]:
    with browser(lab, image(host.variables["images_base_image"])) as driver:
        yield Person(driver, say)


def test_log_in(person: Person, url: str, admin_password: str) -> None:
    person.driver.get(f"{url}/odoo")
    person.type("input[name=login]", "admin")
    person.type("input[name=password]", admin_password)
    person.photograph("1-login")
    person.click("button[type=submit]")
    person.see(".o_main_navbar")


def test_bus_is_connected(person: Person) -> None:
    person.until("odoo.__WOWL_DEBUG__.root.env.services.bus_service.workerState === 'CONNECTED'", "the bus websocket is not connected")


def test_receive_goods(person: Person, admin: Odoo) -> None:
    product = admin.call("product.product", "create", [{"name": PRODUCT, "is_storable": True}])[0]
    person.click(".o_navbar_apps_menu button")
    person.click("[data-menu-xmlid='stock.menu_stock_root']")
    person.see(".o_kanban_record", text="Receipts")
    person.photograph("2-inventory")
    person.click(".o_kanban_record a, .o_kanban_record .o_kanban_record_title", text="Receipts")
    person.click(".o_list_button_add, .o-kanban-button-new")
    person.click(".o_field_x2many_list_row_add a, .o_field_x2many_list_row_add button")
    person.type(".o_selected_row [name=product_id] input", PRODUCT)
    person.click(".o-autocomplete--dropdown-item", text=PRODUCT)
    person.type(".o_selected_row [name=product_uom_qty] input", "5")
    person.click("button[name=action_confirm]")
    person.click("button[name=button_validate]")
    person.see(".o_statusbar_status .o_arrow_button_current[data-value=done]")
    person.photograph("3-receipt-validated")
    [quant] = admin.call(
        "stock.quant", "search_read", [["product_id", "=", product], ["location_id.usage", "=", "internal"]], fields=["quantity"]
    )
    assert quant["quantity"] == 5


def test_no_error_in_the_browser(person: Person) -> None:
    severe = [entry["message"] for entry in person.driver.execute("getLog", {"type": "browser"})["value"] if entry["level"] == "SEVERE"]
    # Debian's package leaves this library out, which has no source; Discuss wants it to blur a background.
    assert [message for message in severe if "mail/static/lib/selfie_segmentation" not in message] == []

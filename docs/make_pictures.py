"""Make the pictures of the documentation that show pages, each as Chromium renders it.

    pip install --constraint constraints.txt '.[docs]' && playwright install chromium
    python docs/make_pictures.py [NAME…]       # all of PICTURES, or those named

A Chromium that is installed already is used as it is.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent


@contextlib.contextmanager
def browser(width: int, height: int) -> Iterator[Page]:
    """A page of that size, in light colours, twice as fine as it measures."""
    installed = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        yield chromium.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=2, color_scheme="light"
        )
        chromium.close()


def report(target: Path) -> None:
    """The first screen of a report on the built-in emoji set with the food hidden."""
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "report.html"
        subprocess.run(
            [sys.executable, "-m", "sigmax", "compare", "emoji-hidden", "--report", str(page_file)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with browser(1120, 980) as page:
            page.goto(page_file.as_uri())
            page.screenshot(path=target)


def page(target: Path) -> None:
    """The page of `sigmax serve`: one question, two models of the emoji set with the food hidden."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"sigmoid": "--loss sigmoid", "softmax": "--loss softmax-decoupled --none-candidate"}
        for name, given in options.items():
            words = ["train", "emoji-hidden", *given.split(), "-o", f"{folder}/{name}"]
            subprocess.run([sys.executable, "-m", "sigmax", *words], check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-m", "sigmax", "serve", *(f"{folder}/{name}" for name in options), "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, browser(1120, 860) as shown:
            assert server.stderr is not None
            shown.goto(server.stderr.readline().split()[-1])
            shown.get_by_label("Your question").fill("party")
            shown.get_by_label("Rule").select_option("precision")
            shown.get_by_label("Level").fill("0.5")
            shown.wait_for_timeout(3000)  # until both have answered, and the bars have grown
            shown.get_by_role("heading", name="Sigmax").click()
            shown.screenshot(path=target)
            server.terminate()


#: File in docs/ without its suffix -> what makes it.
PICTURES = {"page": page, "report": report}

if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(PICTURES)
    if unknown:
        sys.exit(f"Expected names among {', '.join(PICTURES)}, got {', '.join(sorted(unknown))}.")
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](DOCS / f"{name}.png")
        print(DOCS / f"{name}.png")

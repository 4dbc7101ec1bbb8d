import subprocess
import sys

#: The package itself is left out: what it imports is another question.
REGISTRIES = """
import importlib.util, sys, types
package = types.ModuleType("sigmax")
package.__path__ = list(importlib.util.find_spec("sigmax").submodule_search_locations)
sys.modules["sigmax"] = package
from sigmax.calibration import CALIBRATIONS, RULES
heavy = ("torch", "sklearn", "scipy.special", "scipy.optimize", "scipy.stats")
print([name for name in heavy if name in sys.modules])
"""


def test_registries_import_light():
    """Help reads the names of rules and calibrations."""
    done = subprocess.run([sys.executable, "-c", REGISTRIES], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]"], done.stderr

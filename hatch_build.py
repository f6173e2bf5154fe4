"""Build hook: the extension in C that reads packing `delta` quicker, for wheels and editable installs that ask for it.

    HATCH_BUILD_HOOKS_ENABLE=1 pip install .

Not by default, so that one wheel serves every machine. Where it cannot be compiled the package is built without: NumPy
does the same.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("composer/dataset/_differences.c")


class ExtensionHook(BuildHookInterface[Any]):
    """Compile it beside its source, by Python's stable ABI."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling; `version` is ``standard`` or ``editable``."""
        library = SOURCE.with_suffix(".abi3.so")
        flags = ["-O3", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        if sys.platform == "darwin":
            flags += ["-undefined", "dynamic_lookup"]
        command = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), *flags, "-o", str(library), str(SOURCE)]
        try:
            subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"without {SOURCE}, which could not be compiled: {error}")
            return
        build_data["artifacts"].append(str(library))
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

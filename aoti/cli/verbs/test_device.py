"""``aoti test-device``: list the devices, or test one."""

from __future__ import annotations

import click

from aoti.cli.show import device_name, show_json
from aoti.cli.terminal import say


@click.command("test-device")
@click.argument("device", callback=device_name, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test_device(device: str | None, as_json: bool) -> None:
    """Allocate and compute on DEVICE; without DEVICE, list the devices.

    The listed devices can run models. The last line says why GPUs cannot be used.

    \b
    Example:
      aoti test-device cuda:0
    """
    import aoti
    from aoti.engine.devices import check_device, usable_gpus

    found = [{**info._asdict(), "device": str(info.device)} for info in aoti.devices()]
    if device is not None:
        milliseconds = check_device(device)
        name = "cuda:0" if device == "cuda" else str(aoti.Device(device))
        found = [
            {**info, "ok": True, "milliseconds": milliseconds}
            for info in found
            if info["device"] == name
        ]
    if as_json:
        show_json(found)
        return
    for info in found:
        line = (
            f"{info['device']}: {info['name']}, {info['architecture']}, {info['cores']} cores, "
            f"{info['memory_bytes'] / 2**30:.1f} GiB"
        )
        if info["memory_free_bytes"] is not None:
            line += f" ({info['memory_free_bytes'] / 2**30:.1f} free)"
        if info["driver"]:
            line += f", driver {info['driver']}, libtorch for {info['runtime'] or 'GPUs'}"
        if device is not None:
            line += f"; computed correctly in {info['milliseconds']:.1f} ms"
        say(line)
    if device is None and len(found) == 1:
        say(f"cuda: none, {usable_gpus()[1]}")

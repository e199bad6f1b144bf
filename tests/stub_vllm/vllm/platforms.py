import os
from types import SimpleNamespace

current_platform = SimpleNamespace(
    device_type=os.environ.get("STUB_DEVICE", "cpu"), get_device_total_memory=lambda: 80 << 30
)

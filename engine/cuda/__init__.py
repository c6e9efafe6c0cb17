"""The engine on NVIDIA GPUs.  Nothing here touches a device, or imports torch, when it is imported."""

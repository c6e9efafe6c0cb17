"""The engine on NVIDIA GPUs.  Importing this package touches no device and imports no torch.

What is there, and what runs        device, driver, binaries, precision
One model on one GPU, with torch    engine, context, streams, libraries, buckets
    frames to the encoder's input   input, frames
    encoder                         encoder, encoding, network, prior_tail, tensorrt_network
    chain, Triton in a graph        chains, tables
    chain, one persistent launch    persistent, chain_kernel
Memory of torch or of PyCUDA        memory, memory_torch, memory_pycuda
Other libraries' arrays             arrays/
"""

"""libllama behind the seam of engine/base.py, through llama-cpp-python's low-level bindings.

The only folder that imports llama_cpp.
"""

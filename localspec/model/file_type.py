"""The mixture of types that a file says it is made of, like `Q4_K_M`."""

from collections import Counter

from localspec.model.header import Header

# Names by number, from enum llama_ftype of llama.h; a dash is a number that is not in use.
FILE_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M"
    " Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M"
    " BF16 - - - TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0"
)


def file_type(header: Header) -> str:
    """What mixture of types the file says it is; if it does not, the type of most weight bytes."""
    number, names = header.integer("general.file_type"), FILE_TYPES.split()
    if number is not None and 0 <= number < len(names) and names[number] != "-":
        return names[number]
    n_bytes = Counter[str]()
    for tensor in header.tensors:
        n_bytes[tensor.type.name] += tensor.n_bytes
    return n_bytes.most_common(1)[0][0] if n_bytes else "unknown"

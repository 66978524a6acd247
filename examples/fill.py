import draftmeta
import numpy as np

lens = np.array([6, 1, 12], np.int32)  # KV tokens of 3 requests, 2 of them new in each
seen = np.empty(6, np.int32)
fill = draftmeta.Fill(seq_lens=lens, extend_len=2, seqlens_expanded=seen)  # once; or tensors of torch
fill()  # every step: one call, on torch's current stream
for t in range(6):
    print(f"token {t % 2} of request {t // 2} sees {seen[t]} KV tokens")

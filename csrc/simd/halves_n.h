/* halves_n: the first n lanes of halves, where an instruction set has no masked loads of 16 bits:
 * through a small buffer, so that nothing outside is touched. */
static inline vec v_load_n_f16(const uint16_t *p, ptrdiff_t n)
{
    uint16_t buffer[LANES] = {0};
    memcpy(buffer, p, (size_t)n * sizeof *p);
    return v_load_f16(buffer);
}
static inline vec v_load_n_bf16(const uint16_t *p, ptrdiff_t n)
{
    uint16_t buffer[LANES] = {0};
    memcpy(buffer, p, (size_t)n * sizeof *p);
    return v_load_bf16(buffer);
}
static inline void v_store_n_f16(uint16_t *p, vec x, ptrdiff_t n)
{
    uint16_t buffer[LANES];
    v_store_f16(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}
static inline void v_store_n_bf16(uint16_t *p, vec x, ptrdiff_t n)
{
    uint16_t buffer[LANES];
    v_store_bf16(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}

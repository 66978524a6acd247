/* What draftmeta bench prints and writes of the rows on a GPU.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench_table.h"

#include <string.h>

/* Room for a column: a duration, or a difference with its spread. */
enum { CELL = 24 };

static int cell_width(const bench_table *t)
{
    return t->durations ? 6 : 19;
}

static void print_cell(const bench_table *t, const bench_spread *s)
{
    char text[CELL + 16] = "-";
    if (s->median != 0 && t->durations)
        snprintf(text, sizeof text, "%.2f", s->median);
    else if (s->median != 0)
        snprintf(text, sizeof text, "%.2f (%.2f..%.2f)", s->median, s->p10, s->p90);
    printf(" %*s", cell_width(t), text);
}

static void print_columns(const bench_table *t, const bench_spread *columns)
{
    for (int c = 0; c < BENCH_COLUMNS; c++)
        print_cell(t, &columns[c]);
}

/* ---- The table ------------------------------------------------------------------------------------------------ */

void bench_table_head(const bench_table *t)
{
    printf("%s\n", t->durations
                       ? "us: how long the kernel runs, by CUPTI, medians"
                       : "us: DIFFERENCES of two graphs, with a fill and without (10%..90% of them): there is no "
                         "CUPTI, bars are not judged");
    printf(
        "warm: one fill after the other; code: between them kernels that fill the instruction caches; cold: and the L2 "
        "is flushed\n");
    printf("%shost: a call; /bare: as a multiple of launching an empty kernel\n",
           t->durations ? "chain: what a fill adds to a graph of such kernels; " : "");
    if (t->beside)
        printf("ratio: warm, as a multiple of what the %s backend takes, in turns\n", t->beside);
    printf("%-33s %9s", "fill", "launch");
    for (int c = 0; c < BENCH_COLUMNS; c++)
        printf(" %*s", cell_width(t), bench_column_names[c]);
    printf("%s %6s %5s%s  bars\n", t->durations ? "  chain" : "", "host", "/bare", t->beside ? "  ratio" : "");
    printf("%-33s %9s", "empty kernel", "");
    print_columns(t, t->empty);
    printf("\n");
}

static void print_bars(const bench_table *t, int i)
{
    bench_verdict verdicts[BENCH_MOST_BARS];
    const int count = bench_judge(t->rows, t->results, i, t->durations, t->copy_rate, verdicts);
    const bench_verdict *missed = NULL;
    int num_missed = 0, unknown = 0;
    for (int k = count - 1; k >= 0; k--) {
        unknown += verdicts[k].state == BENCH_UNKNOWN;
        if (verdicts[k].state == BENCH_MISSED) {
            missed = &verdicts[k];
            num_missed++;
        }
    }
    if (missed)
        printf("MISSED %d/%d: %s > %.2f %s", num_missed, count, bench_column_names[missed->column], missed->limit_us,
               missed->of);
    else if (unknown)
        printf("%d unknown", unknown);
    else if (count)
        printf("met");
}

void bench_table_row(const bench_table *t, int i)
{
    const bench_result *x = &t->results[i];
    char shape[24] = "?", bare[16] = "-";
    if (x->grid > 0)
        snprintf(shape, sizeof shape, "%ux%u", x->grid, x->block);
    if (x->bare_us > 0)
        snprintf(bare, sizeof bare, "%.2f", x->host_us / x->bare_us);
    printf("%-33s %9s", t->rows[i].name, shape);
    print_columns(t, x->columns);
    if (t->durations)
        print_cell(t, &x->chain);
    printf(" %6.2f %5s", x->host_us, bare);
    if (t->beside && x->beside[BENCH_WARM].median > 0)
        printf(" %6.3f", x->columns[BENCH_WARM].median / x->beside[BENCH_WARM].median);
    else if (t->beside)
        printf(" %6s", "-");
    printf("  ");
    print_bars(t, i);
    printf("\n");
    fflush(stdout);
}

bench_tally bench_table_tally(const bench_table *t)
{
    bench_tally sum = {0};
    bench_verdict verdicts[BENCH_MOST_BARS];
    for (int i = 0; i < t->num_rows; i++) {
        if (!t->results[i].selected)
            continue;
        const int count = bench_judge(t->rows, t->results, i, t->durations, t->copy_rate, verdicts);
        for (int k = 0; k < count; k++) {
            sum.met += verdicts[k].state == BENCH_MET;
            sum.missed += verdicts[k].state == BENCH_MISSED;
            sum.unknown += verdicts[k].state == BENCH_UNKNOWN;
        }
    }
    return sum;
}

/* ---- The report ----------------------------------------------------------------------------------------------- */

static void write_spread(tool_json *j, const char *key, const bench_spread *s)
{
    if (s->median == 0)
        return;
    tool_json_open(j, key, '{');
    tool_json_real(j, "us", s->median);
    tool_json_real(j, "p10_us", s->p10);
    tool_json_real(j, "p90_us", s->p90);
    tool_json_close(j, '}');
}

static void write_columns(tool_json *j, const char *key, const bench_spread *columns)
{
    tool_json_open(j, key, '{');
    for (int c = 0; c < BENCH_COLUMNS; c++)
        write_spread(j, bench_column_names[c], &columns[c]);
    tool_json_close(j, '}');
}

static void write_bars(tool_json *j, const bench_table *t, int i)
{
    static const char *const states[] = {[BENCH_MET] = "met", [BENCH_MISSED] = "missed", [BENCH_UNKNOWN] = "unknown"};
    bench_verdict verdicts[BENCH_MOST_BARS];
    const int count = bench_judge(t->rows, t->results, i, t->durations, t->copy_rate, verdicts);
    tool_json_open(j, "bars", '[');
    for (int k = 0; k < count; k++) {
        tool_json_open(j, NULL, '{');
        tool_json_string(j, "column", bench_column_names[verdicts[k].column]);
        tool_json_real(j, "at_most_us", verdicts[k].limit_us);
        tool_json_string(j, "of", verdicts[k].of);
        tool_json_string(j, "state", states[verdicts[k].state]);
        tool_json_close(j, '}');
    }
    tool_json_close(j, ']');
}

static void write_row(tool_json *j, const bench_table *t, int i)
{
    const bench_result *x = &t->results[i];
    bench_report_row(j, &t->rows[i].work);
    tool_json_int(j, "fills", t->rows[i].fills);
    tool_json_string(j, "timed_by", t->durations ? "CUPTI" : "differences of graphs");
    write_columns(j, "columns", x->columns);
    if (t->beside)
        write_columns(j, "beside", x->beside);
    write_spread(j, "chain", &x->chain);
    tool_json_real(j, "host_us", x->host_us);
    if (x->bare_us > 0)
        tool_json_real(j, "bare_us", x->bare_us);
    tool_json_real(j, "bytes", x->bytes);
    if (t->copy_rate > 0)
        tool_json_real(j, "copy_us", x->bytes / t->copy_rate);
    write_bars(j, t, i);
    tool_json_close(j, '}');
}

static void write_empty(tool_json *j, const bench_table *t)
{
    tool_json_open(j, NULL, '{');
    tool_json_string(j, "name", "empty kernel");
    write_columns(j, "columns", t->empty);
    tool_json_close(j, '}');
}

int bench_table_write(const bench_table *t, const char *path, const dm_backend_info *info)
{
    tool_json j;
    const int status = bench_report_open(&j, path, info);
    if (status != TOOL_GOOD)
        return status;
    write_empty(&j, t);
    for (int i = 0; i < t->num_rows; i++)
        if (t->results[i].selected)
            write_row(&j, t, i);
    return bench_report_close(&j, path);
}

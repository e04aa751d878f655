/* Where a key belongs, where a split at its colons tells. All other keys are for the Python router. */
#include "emit.h"

static int wrong(void)
{
    PyErr_SetString(PyExc_ValueError, "routes that are wrong");
    return 0;
}

static int read_choice(Choice *choice, PyObject *text)
{
    if (!PyBytes_CheckExact(text))
        return wrong();
    choice->start = PyBytes_AS_STRING(text);
    choice->size = (size_t)PyBytes_GET_SIZE(text);
    return 1;
}

static int read_segment(Segment *segment, PyObject *spec)
{
    int kind;
    PyObject *choices;
    if (!PyTuple_Check(spec) ||
        !PyArg_ParseTuple(spec, "ipO!;a segment", &kind, &segment->captured, &PyTuple_Type, &choices))
        return PyErr_Occurred() ? 0 : wrong();
    if (kind < CHOICES || kind >= SEGMENT_KINDS)
        return wrong();
    segment->kind = (SegmentKind)kind;
    segment->choices = PyMem_Calloc((size_t)PyTuple_GET_SIZE(choices) + 1, sizeof(Choice));
    if (segment->choices == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(choices); n++)
        if (!read_choice(&segment->choices[n], PyTuple_GET_ITEM(choices, n)))
            return 0;
    segment->choice_count = (int)PyTuple_GET_SIZE(choices);
    return 1;
}

static int read_places(Template *template, PyObject *places, PyObject *programs, int captures)
{
    if (template->program < -1 || template->program >= PyTuple_GET_SIZE(programs))
        return wrong();
    if (template->program == -1)
        return 1;
    const Program *program = (const Program *)PyTuple_GET_ITEM(programs, template->program);
    if (PyTuple_GET_SIZE(places) != program->key_count)
        return wrong();
    for (int n = 0; n < program->key_count; n++) {
        long place = PyLong_AsLong(PyTuple_GET_ITEM(places, n));
        if (place < 0 || place >= captures)
            return PyErr_Occurred() ? 0 : wrong();
        template->places[n] = (int)place;
    }
    return 1;
}

static int read_template(Template *template, PyObject *spec, PyObject *programs)
{
    PyObject *segments, *places;
    int captures = 0;
    if (!PyTuple_Check(spec) ||
        !PyArg_ParseTuple(spec, "O!ipO!;a template", &PyTuple_Type, &segments, &template->program, &template->derived,
                          &PyTuple_Type, &places))
        return PyErr_Occurred() ? 0 : wrong();
    Py_ssize_t count = PyTuple_GET_SIZE(segments);
    if (count > MAX_SEGMENTS)
        return wrong();
    template->segments = PyMem_Calloc((size_t)count + 1, sizeof(Segment));
    if (template->segments == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    template->count = (int)count;
    for (Py_ssize_t n = 0; n < count; n++) {
        if (!read_segment(&template->segments[n], PyTuple_GET_ITEM(segments, n)))
            return 0;
        captures += template->segments[n].captured != 0;
    }
    return read_places(template, places, programs, captures);
}

static int read_head(Head *head, PyObject *spec, PyObject *programs)
{
    PyObject *text, *templates;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "SO!;a head", &text, &PyTuple_Type, &templates))
        return PyErr_Occurred() ? 0 : wrong();
    if (!read_choice(&head->head, text))
        return 0;
    head->templates = PyMem_Calloc((size_t)PyTuple_GET_SIZE(templates) + 1, sizeof(Template));
    if (head->templates == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    head->count = (int)PyTuple_GET_SIZE(templates);
    for (int n = 0; n < head->count; n++)
        if (!read_template(&head->templates[n], PyTuple_GET_ITEM(templates, n), programs))
            return 0;
    return 1;
}

/* *spec* must outlive the routes, which point to its texts. */
int routes_read(Routes *routes, PyObject *spec, PyObject *programs)
{
    routes->heads = PyMem_Calloc((size_t)PyTuple_GET_SIZE(spec) + 1, sizeof(Head));
    if (routes->heads == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    routes->count = (int)PyTuple_GET_SIZE(spec);
    for (int n = 0; n < routes->count; n++)
        if (!read_head(&routes->heads[n], PyTuple_GET_ITEM(spec, n), programs))
            return 0;
    return 1;
}

void routes_free(Routes *routes)
{
    for (int h = 0; h < routes->count; h++) {
        Head *head = &routes->heads[h];
        for (int t = 0; t < head->count; t++) {
            Template *template = &head->templates[t];
            for (int n = 0; n < template->count; n++)
                PyMem_Free(template->segments[n].choices);
            PyMem_Free(template->segments);
        }
        PyMem_Free(head->templates);
    }
    PyMem_Free(routes->heads);
    memset(routes, 0, sizeof(*routes));
}

static int is(const Text *text, const Choice *choice)
{
    return text->size == choice->size && memcmp(text->start, choice->start, choice->size) == 0;
}

static int is_hex(Byte byte)
{
    Byte lower = byte | 0x20;
    return is_digit(byte) || (lower >= 'a' && lower <= 'f');
}

static int is_uuid(const Text *text)
{
    if (text->size != 36)
        return 0;
    for (int n = 0; n < 36; n++) {
        int dash = n == 8 || n == 13 || n == 18 || n == 23;
        if (dash ? text->start[n] != '-' : !is_hex(text->start[n]))
            return 0;
    }
    return 1;
}

static int is_int(const Text *text)
{
    size_t n = text->size > 0 && text->start[0] == '-';
    if (n == text->size)
        return 0;
    for (; n < text->size; n++)
        if (!is_digit(text->start[n]))
            return 0;
    return 1;
}

static int fits(const Segment *segment, const Text *text)
{
    switch (segment->kind) {
    case PLAIN_TEXT:
        return text->size > 0;
    case ANY_UUID:
        return is_uuid(text);
    case ANY_INT:
        return is_int(text);
    default:
        for (int n = 0; n < segment->choice_count; n++)
            if (is(text, &segment->choices[n]))
                return 1;
        return 0;
    }
}

static int split(const Text *key, Text *segments)
{
    int count = 0;
    const Byte *at = key->start, *end = at + key->size;
    for (;;) {
        const Byte *colon = memchr(at, ':', (size_t)(end - at));
        if (count == MAX_SEGMENTS)
            return 0;
        segments[count].start = at;
        segments[count].escaped = 0;
        segments[count++].size = (size_t)((colon ? colon : end) - at);
        if (colon == NULL)
            return count;
        at = colon + 1;
    }
}

static int matches(const Template *template, const Text *segments, int count)
{
    if (template->count != count)
        return 0;
    for (int n = 0; n < count; n++)
        if (!fits(&template->segments[n], &segments[n]))
            return 0;
    return 1;
}

static const Head *find_head(const Routes *routes, int *last_head, const Text *text)
{
    for (int tried = 0, n = *last_head; tried < routes->count; tried++, n++) {
        if (n >= routes->count)
            n = 0;
        if (is(text, &routes->heads[n].head)) {
            *last_head = n;
            return &routes->heads[n];
        }
    }
    return NULL;
}

const Template *route_find(const Routes *routes, int *last_head, const Text *key, Text *captures)
{
    Text segments[MAX_SEGMENTS];
    const Template *found = NULL;
    int count = split(key, segments);
    const Head *head = count ? find_head(routes, last_head, &segments[0]) : NULL;
    for (int n = 0; head != NULL && n < head->count; n++) {
        if (!matches(&head->templates[n], segments, count))
            continue;
        if (found != NULL)
            return NULL;
        found = &head->templates[n];
    }
    if (found == NULL || found->program < 0)
        return NULL;
    for (int n = 0, capture = 0; n < count; n++)
        if (found->segments[n].captured)
            captures[capture++] = segments[n];
    return found;
}

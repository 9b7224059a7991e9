def tables(rows):
    return ""


def draw_plots(rows, path):
    pass

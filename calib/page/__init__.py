"""The calibration page: pictures of all views, points, shapes, residuals and a ground plan in a browser.

`draft` is what is being edited and `edits` every change to it (pure); `history` keeps them for undo; `facts`
is what the page is told; `server` is the only part with sockets.
"""

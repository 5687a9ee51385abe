"""What the HTTP service can do, as OpenAPI, and the same as a page that needs nothing from anywhere else."""

from __future__ import annotations

import html
from typing import Any

import ica_unet_jax

_CINE = {
    "required": True,
    "description": "A cine as NIfTI: the bytes of a .nii or .nii.gz file, 3D or 4D.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
REFUSALS = {
    401: "The token is missing or wrong.",
    408: "The upload took too long.",
    413: "The file is larger than the limit, packed or unpacked.",
    415: "A form came: send the file itself as the body.",
    422: "The file is no cine that can be read.",
    500: "A fault of this program.",
    503: "Too many requests wait, or this one took too long: try again later.",
}


def _post(summary: str, kind: str) -> dict[str, Any]:
    answers = {"200": {"description": summary, "content": {kind: {}}}}
    error = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
    answers |= {str(code): {"description": text, "content": error} for code, text in REFUSALS.items()}
    return {"post": {"summary": summary, "requestBody": _CINE, "responses": answers}}


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ICA-UNet",
            "version": ica_unet_jax.__version__,
            "description": "Segments cardiac cine MRI: 1 right ventricle, 2 myocardium, 3 left ventricle. For research, not for diagnosis. "
            "Nothing that is sent is kept.",
        },
        "paths": {
            "/segment": _post("A zip archive of the three files that follow.", "application/zip"),
            "/masks": _post("The labels as masks.nii.gz, in the geometry of the cine.", "application/gzip"),
            "/volumes": _post("The volumes of each frame in mL, as CSV.", "text/csv"),
            "/measurements": _post("Phases, volumes and ejection fractions, as JSON.", "application/json"),
            "/health": {"get": {"summary": "Says that the service runs.", "security": [], "responses": {"200": {"description": "It runs."}}}},
        },
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def page() -> str:
    """The document as HTML."""
    about = document()
    rows = [
        f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(call['summary'])}</p>"
        + (f"<p>{html.escape(call['requestBody']['description'])}</p>" if "requestBody" in call else "")
        for path, calls in about["paths"].items()
        for method, call in calls.items()
    ]
    refusals = "".join(f"<li>{code}: {html.escape(text)}</li>" for code, text in REFUSALS.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{about['info']['title']}</title>"
        f"<h1>{about['info']['title']} {about['info']['version']}</h1><p>{html.escape(about['info']['description'])}</p>"
        f"<p>The same for programs: <a href=/openapi.json>/openapi.json</a>.</p>{''.join(rows)}"
        f'<h2>Refusals</h2><p>JSON, {{"error": "..."}}:</p><ul>{refusals}</ul></html>'
    )

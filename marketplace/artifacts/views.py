"""Downloads of public artifacts, uploads of data sets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseNotModified
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.artifacts import services, store
from marketplace.artifacts.models import Artifact
from trainer.protocol.errors import HyperGPUError

CHUNK = 256 * 1024
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class RawParser(BaseParser):
    """Leaves the body alone, so that the view can stream it."""

    media_type = "*/*"

    def parse(self, stream, media_type=None, parser_context=None):
        return stream


def body_chunks(request: HttpRequest) -> Iterator[bytes]:
    """The raw body, piece by piece."""
    while chunk := request.read(CHUNK):
        yield chunk


class Slice(io.BufferedReader):
    """A file that ends `left` bytes further on."""

    left = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(self.left if size is None or size < 0 else min(size, self.left))
        self.left -= len(data)
        return data


def serve(artifact: Artifact, request: HttpRequest) -> HttpResponse | FileResponse:
    """The blob itself, or the one range of it that is asked for (RFC 9110, section 14); it never changes, so browsers may keep it
    for ever."""
    etag = f'"{artifact.sha256}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponseNotModified()
    path = store.path_of(artifact.sha256)
    if not path.exists():
        raise HyperGPUError("artifact.unknown", f"The bytes of {artifact.sha256} are no longer stored here.")
    asked = RANGE.fullmatch(request.headers.get("Range", ""))
    first, last = (int(asked[1]), min(int(asked[2] or artifact.size - 1), artifact.size - 1)) if asked else (0, artifact.size - 1)
    if asked and not first <= last:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{artifact.size}"})
    suffix = "json" if artifact.kind == Artifact.Kind.EVIDENCE else "safetensors"
    filename = artifact.name or f"{artifact.kind}-{artifact.sha256[:12]}.{suffix}"
    file = Slice(path.open("rb", buffering=0))
    file.seek(first)
    file.left = last - first + 1
    response = FileResponse(file, content_type="application/octet-stream", filename=filename, as_attachment=True)
    if asked:
        response.status_code = 206
        response["Content-Length"] = file.left
        response["Content-Range"] = f"bytes {first}-{last}/{artifact.size}"
    response["ETag"] = etag
    response["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


class ArtifactView(APIView):
    @extend_schema(operation_id="getArtifact", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, sha256: str) -> HttpResponse | FileResponse:
        artifact = Artifact.objects.filter(sha256=sha256, public=True).first()
        if artifact is None:
            raise HyperGPUError("artifact.unknown", f"There is no public artifact {sha256}.")
        return serve(artifact, request)


class DatasetSerializer(serializers.Serializer):
    sha256 = serializers.CharField()
    size = serializers.IntegerField()


class DatasetsView(APIView):
    permission_classes = [IsAuthenticated]
    parser_classes = [RawParser]

    @extend_schema(
        operation_id="uploadDataset",
        request={"application/octet-stream": OpenApiTypes.BINARY},
        responses={201: DatasetSerializer},
        parameters=[OpenApiParameter("X-Filename", str, OpenApiParameter.HEADER)],
    )
    def post(self, request: Request) -> Response:
        name = re.sub(r"[^\w.\- ]", "_", request.headers.get("X-Filename", ""))[:200]
        artifact = services.store_upload(
            chunks=body_chunks(request._request),
            kind=Artifact.Kind.DATASET,
            limit=settings.HYPERGPU.max_body_bytes,
            name=name,
            owner=str(request.user),
        )
        return Response({"sha256": artifact.sha256, "size": artifact.size}, status=201)

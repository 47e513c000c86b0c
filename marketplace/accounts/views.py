"""Wallet sign-in over HTTP."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect, ensure_csrf_cookie
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts import services


class SessionSerializer(serializers.Serializer):
    address = serializers.CharField(allow_null=True)


class NonceSerializer(serializers.Serializer):
    nonce = serializers.CharField()


class SignInSerializer(serializers.Serializer):
    message = serializers.CharField(max_length=4096, trim_whitespace=False)
    signature = serializers.RegexField(r"^0x[0-9a-fA-F]{130}$")


class SessionView(APIView):
    @method_decorator(ensure_csrf_cookie)
    @extend_schema(operation_id="getSession", responses=SessionSerializer)
    def get(self, request: Request) -> Response:
        return Response({"address": getattr(request.user, "address", None)})


@method_decorator(csrf_protect, name="dispatch")
class NonceView(APIView):
    @extend_schema(operation_id="issueNonce", request=None, responses=NonceSerializer)
    def post(self, request: Request) -> Response:
        return Response({"nonce": services.issue_nonce()})


@method_decorator(csrf_protect, name="dispatch")
class LoginView(APIView):
    @extend_schema(operation_id="signIn", request=SignInSerializer, responses=SessionSerializer)
    def post(self, request: Request) -> Response:
        body = SignInSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        account = services.sign_in(**body.validated_data)
        login(request._request, account, backend="django.contrib.auth.backends.ModelBackend")
        return Response({"address": account.address})


@method_decorator(csrf_protect, name="dispatch")
class LogoutView(APIView):
    @extend_schema(operation_id="signOut", request=None, responses=SessionSerializer)
    def post(self, request: Request) -> Response:
        logout(request._request)
        return Response({"address": None})

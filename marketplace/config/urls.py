"""Every address of the web server."""

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import ensure_csrf_cookie
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from marketplace.accounts import views as accounts
from marketplace.artifacts import views as artifacts
from marketplace.config import snapshots
from marketplace.jobs import views as jobs
from marketplace.operators import views as operators
from marketplace.training import views as training
from marketplace.training.deterrence import DeterrenceView
from marketplace.training.proposals import PlanView, ProposalsView


@ensure_csrf_cookie
def page(request: HttpRequest, **route: str) -> HttpResponse | FileResponse:
    """The built page answers every address that is not the API's; its router does the rest."""
    if not settings.PAGE.exists():
        return HttpResponse("The page is not built: run npm run build in frontend/.", status=503, content_type="text/plain")
    return HttpResponse(settings.PAGE.read_bytes(), content_type="text/html", headers={"Cache-Control": "no-cache"})


urlpatterns = [
    path("api/v1/network", snapshots.NetworkView.as_view()),
    path("api/v1/status", snapshots.StatusView.as_view()),
    path("api/v1/events", snapshots.EventsView.as_view()),
    path("api/v1/auth/session", accounts.SessionView.as_view()),
    path("api/v1/auth/nonce", accounts.NonceView.as_view()),
    path("api/v1/auth/login", accounts.LoginView.as_view()),
    path("api/v1/auth/logout", accounts.LogoutView.as_view()),
    path("api/v1/jobs", jobs.JobsView.as_view()),
    path("api/v1/jobs/check", snapshots.CheckJobView.as_view()),
    path("api/v1/jobs/<int:job_id>", snapshots.JobView.as_view()),
    path("api/v1/jobs/<int:job_id>/stop", jobs.StopJobView.as_view()),
    path("api/v1/jobs/<int:job_id>/deterrence", DeterrenceView.as_view()),
    path("api/v1/jobs/<int:job_id>/proposals", ProposalsView.as_view()),
    path("api/v1/jobs/<int:job_id>/rounds/<int:number>/settlement", snapshots.SettlementView.as_view()),
    path("api/v1/proposals", PlanView.as_view()),
    path("api/v1/payments", snapshots.PaymentsView.as_view()),
    path("api/v1/datasets", artifacts.DatasetsView.as_view()),
    re_path(r"^api/v1/artifacts/(?P<sha256>[0-9a-f]{64})$", artifacts.ArtifactView.as_view()),
    path("api/v1/operators", operators.OperatorsView.as_view()),
    re_path(r"^api/v1/operators/(?P<address>0x[0-9a-fA-F]{40})$", snapshots.OperatorView.as_view()),
    path("api/v1/nodes", operators.NodesView.as_view()),
    path("api/v1/nodes/<int:node_id>/measurements", operators.MeasurementsView.as_view()),
    path("api/v1/pairs", operators.PairsView.as_view()),
    path("api/v1/bids", operators.BidsView.as_view()),
    path("agent/v1/hello", operators.HelloView.as_view()),
    path("agent/v1/ping", training.ping),
    path("agent/v1/leases", training.lease),
    path("agent/v1/assignments/<int:assignment_id>/heartbeat", training.heartbeat),
    path("agent/v1/assignments/<int:assignment_id>/commit", training.commit),
    path("agent/v1/assignments/<int:assignment_id>/artifact", training.artifact),
    path("agent/v1/assignments/<int:assignment_id>/pieces/<int:pieces>", training.pieces_held),
    path("agent/v1/assignments/<int:assignment_id>/pieces/<int:pieces>/<int:index>", training.piece),
    path("agent/v1/assignments/<int:assignment_id>/receipt", training.receipt),
    path("agent/v1/assignments/<int:assignment_id>/contribution", training.contribution),
    path("agent/v1/assignments/<int:assignment_id>/fail", training.fail),
    path("agent/v1/audits/<int:audit_id>/evidence", training.audit_evidence),
    path("agent/v1/audits/<int:audit_id>/pieces/<int:pieces>", training.evidence_held),
    path("agent/v1/audits/<int:audit_id>/pieces/<int:pieces>/<int:index>", training.evidence_piece),
    re_path(r"^agent/v1/artifacts/(?P<sha256>[0-9a-f]{64})$", training.download),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema")),
    re_path(r"^(?!api/|agent/|static/|ws/).*$", page),
]

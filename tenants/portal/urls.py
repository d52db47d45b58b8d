"""The portal's addresses in this room; saas/urls.py joins them with the others under the name "portal"."""

from django.urls import path

from tenants.portal import joining, notices, people

urlpatterns = [
    path("login/", people.log_in, name="log_in"),
    path("logout/", people.log_out, name="log_out"),
    path("second-factor/", people.second_factor, name="second_factor"),
    path("forgot/", people.forgot, name="forgot"),
    path("reset/<str:person>/<str:token>/", people.reset, name="reset"),
    path("security/", people.security, name="security"),
    path("notices/", notices.notices, name="notices"),
    path("language/", people.language, name="language"),
    path("sign-up/", joining.sign_up, name="sign_up"),
    path("sign-up/<str:token>/", joining.confirm, name="confirm"),
    path("terms/", joining.terms, name="terms"),
    path("invitation/<str:person>/<str:token>/", joining.invitation, name="invitation"),
]

"""How someone becomes a reseller: the terms of service, an application, and who accepted which terms."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from tenants.models.reseller import Reseller
from tenants.models.staff import StaffUser
from tenants.models.tenant import LANGUAGES


class ResellerTerms(models.Model):
    """A version of what resellers agree to, never changed: who accepted it accepted these words. The newest counts.

    While there is none nobody can apply.
    """

    version = models.CharField(_("version"), max_length=32, unique=True)
    text = models.TextField(_("text in Chinese"))
    text_en = models.TextField(_("text in English"))
    published_at = models.DateTimeField(_("published"), db_default=Now(), editable=False)

    class Meta:
        verbose_name = _("resellers' terms of service")
        verbose_name_plural = _("resellers' terms of service")

    def __str__(self) -> str:
        return self.version

    @property
    def words(self) -> str:
        """The text in the reader's language."""
        return self.text if (get_language() or "").startswith("zh") else self.text_en


class ResellerApplication(models.Model):
    """Someone asks to become a reseller: confirmed by mail, then approved or refused by the operator, once.

    Of the link in the mail only the SHA-256 is kept. That its terms were accepted is part of asking.
    """

    class State(models.TextChoices):
        """An application ends in one of the last two."""

        UNCONFIRMED = "unconfirmed", _("address not confirmed")
        WAITING = "waiting", _("waiting")
        APPROVED = "approved", _("approved")
        REFUSED = "refused", _("refused")

    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(_("slug"), max_length=40)
    contact = models.CharField(_("contact person"), max_length=80)
    email = models.EmailField(_("e-mail"))
    phone = models.CharField(_("phone"), max_length=20)
    about = models.TextField(_("what they want to do"), max_length=2000, blank=True, default="")
    language = models.CharField(_("language"), max_length=10, choices=LANGUAGES)
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.UNCONFIRMED)
    digest = models.CharField(_("digest"), max_length=64, unique=True, editable=False)
    terms = models.ForeignKey(
        ResellerTerms, verbose_name=_("terms of service"), on_delete=models.PROTECT, related_name="+"
    )
    address = models.CharField(_("accepted from the address"), max_length=45)
    created_at = models.DateTimeField(_("asked and accepted"), db_default=Now(), editable=False)
    confirmed_at = models.DateTimeField(_("address confirmed"), null=True, blank=True)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    decided_by = models.ForeignKey(
        StaffUser, verbose_name=_("decided by"), on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    reseller = models.OneToOneField(
        Reseller, verbose_name=_("reseller"), on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        verbose_name = _("reseller's application")
        verbose_name_plural = _("resellers' applications")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state="unconfirmed", confirmed_at__isnull=True)
                | (~Q(state="unconfirmed") & Q(confirmed_at__gte=F("created_at"))),
                name="tenants_application_confirmed",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["unconfirmed", "waiting"], decided_at__isnull=True, decided_by__isnull=True)
                | Q(state__in=["approved", "refused"], decided_at__isnull=False, decided_by__isnull=False),
                name="tenants_application_decided",
            ),
            models.CheckConstraint(
                condition=Q(state="approved", reseller__isnull=False)
                | (~Q(state="approved") & Q(reseller__isnull=True)),
                name="tenants_application_reseller",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["state", "-created_at"], name="tenants_application_state")]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class TermsAcceptance(models.Model):
    """A reseller's person accepted a version of the terms: when, and from which address. Only ever added."""

    reseller = models.ForeignKey(
        Reseller, verbose_name=_("reseller"), on_delete=models.PROTECT, related_name="terms_accepted"
    )
    staff = models.ForeignKey(StaffUser, verbose_name=_("staff user"), on_delete=models.PROTECT, related_name="+")
    terms = models.ForeignKey(
        ResellerTerms, verbose_name=_("terms of service"), on_delete=models.PROTECT, related_name="+"
    )
    address = models.CharField(_("accepted from the address"), max_length=45)
    accepted_at = models.DateTimeField(_("accepted"))

    class Meta:
        verbose_name = _("acceptance of terms")
        verbose_name_plural = _("acceptances of terms")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["reseller", "staff", "terms"], name="tenants_termsacceptance_once"),
        ]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"

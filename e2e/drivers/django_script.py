"""Django through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import io
import os

import django
from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError, ProgrammingError, connections, transaction
from django.db.models import Count, OuterRef, Subquery


def ok(what):
    print("ok", what, flush=True)


def as_user(token):
    """One account of the database, and a token for each of those who use it."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["SALLYPORT_DATABASE"],
        "USER": os.environ["SALLYPORT_USER"],
        "PASSWORD": os.environ[token],
        "HOST": os.environ["SALLYPORT_HOST"],
        "PORT": os.environ["SALLYPORT_PORT"],
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": os.environ["SALLYPORT_CA"]},
    }


contributed = ["auth", "contenttypes", "sessions", "sites", "flatpages", "redirects", "admin", "messages"]
settings.configure(
    DATABASES={
        "default": as_user("SALLYPORT_APPLICATION"),
        "deployment": as_user("SALLYPORT_DEPLOYMENT"),
        "analyst": as_user("SALLYPORT_ANALYST"),
    },
    INSTALLED_APPS=[f"django.contrib.{name}" for name in contributed],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    SILENCED_SYSTEM_CHECKS=[f"admin.E{number}" for number in (402, 403, 404, 408, 409, 410)],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SITE_ID=1,
    USE_TZ=True,
)
django.setup()

from django.contrib.admin.models import ADDITION, LogEntry  # noqa: E402
from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.contrib.sites.models import Site  # noqa: E402


def refused(action):
    try:
        with transaction.atomic():
            action()
    except ProgrammingError as error:
        assert error.__cause__.sqlstate == "42501", error
        return str(error)
    raise AssertionError("not refused")


call_command("migrate", database="deployment", verbosity=0)
call_command("migrate", "--check", database="deployment", verbosity=0)
assert Permission.objects.filter(codename="add_user").exists()
ok("migrations, and what hangs on them: permissions, types of content, a site by a sequence set anew")

call_command("migrate", "redirects", "zero", database="deployment", verbosity=0)
call_command("migrate", "redirects", database="deployment", verbosity=0)
ok("migrations back and forth")

with transaction.atomic():
    people = User.objects.bulk_create(User(username=f"u{n}", email=f"u{n}@example.com") for n in range(40))
    group, _ = Group.objects.get_or_create(name="readers")
    group.user_set.add(*people[:10])
    group.permissions.set(Permission.objects.filter(codename__startswith="view_"))
assert User.objects.filter(groups__name="readers").count() == 10
assert Group.objects.annotate(members=Count("user")).get().members == 10
newest = User.objects.filter(groups=OuterRef("pk")).order_by("-id").values("username")[:1]
assert Group.objects.annotate(newest=Subquery(newest)).get().newest == "u9"
assert len(User.objects.prefetch_related("groups", "user_permissions").in_bulk()) == 40
assert sum(1 for _ in User.objects.iterator(chunk_size=7)) == 40
for person in people:
    person.first_name = person.username.upper()
assert User.objects.bulk_update(people, ["first_name"]) == 40
Group.objects.bulk_create(Group(name=f"g{n}") for n in range(20))
assert Group.objects.filter(name__iendswith="9").delete()[0] == 2
ok("objects: many at once, joins, aggregates, subqueries, cursors of the server")

with transaction.atomic():
    locked = User.objects.select_for_update(skip_locked=True).get(username="u1")
    try:
        with transaction.atomic():
            User.objects.create(username="u1")
        raise AssertionError("twice the same name")
    except IntegrityError:
        pass
    locked.set_password("a secret")
    locked.save()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [7])
assert User.objects.get(username="u1").check_password("a secret")
ok("transactions, savepoints, locks of rows and advisory ones")

kind = ContentType.objects.get_for_model(User)
entry = {"user": locked, "content_type": kind, "object_id": "1", "object_repr": "u1", "action_flag": ADDITION}
LogEntry.objects.create(**entry)
assert refused(lambda: LogEntry.objects.all().delete()) == "the audit trail is only added to"
assert refused(lambda: User.objects.update(is_staff=True)) == "name the rows that you mean"
assert LogEntry.objects.count() == 1 and not User.objects.filter(is_staff=True).exists()
ok("refusals of what the policy closes, and the session goes on")

assert {row["email"] for row in User.objects.using("analyst").values("email")} == {"***"}
assert User.objects.using("analyst").filter(groups__name="readers").count() == 10
call_command("inspectdb", "--database", "analyst", stdout=(models := io.StringIO()))
assert "class AuthUser(models.Model):" in models.getvalue() and "Unable to inspect" not in models.getvalue()
ok("an analyst sees masks, counts rows, and inspects the database")

Site.objects.using("deployment").create(id=7, domain="seven.example.com", name="7")
call_command("sqlsequencereset", "sites", "auth", no_color=True, stdout=(resets := io.StringIO()))
with connections["default"].cursor() as cursor:
    for reset in resets.getvalue().strip().split("\n"):
        if reset not in ("BEGIN;", "COMMIT;"):
            cursor.execute(reset)
assert Site.objects.create(domain="eight.example.com", name="8").id == 8
ok("sequences set anew after rows with numbers of their own")

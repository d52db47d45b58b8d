"""What happened to a tenant stays written as it was."""

from django.db import migrations

REFUSE = """
CREATE FUNCTION lifecycle_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: rows are only ever added', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER lifecycle_tenantevent_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lifecycle_tenantevent
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_refuse_change();
CREATE FUNCTION lifecycle_refuse_other_proof() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the proof of deletion % stays as it is', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER lifecycle_tenantdeletion_keeps BEFORE UPDATE OR DELETE ON lifecycle_tenantdeletion FOR EACH ROW
    WHEN (OLD.state = 'done') EXECUTE FUNCTION lifecycle_refuse_other_proof();
"""
ALLOW = """
DROP TRIGGER lifecycle_tenantdeletion_keeps ON lifecycle_tenantdeletion;
DROP FUNCTION lifecycle_refuse_other_proof();
DROP TRIGGER lifecycle_tenantevent_append_only ON lifecycle_tenantevent;
DROP FUNCTION lifecycle_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0001_lives")]

    operations = [migrations.RunSQL(REFUSE, ALLOW)]

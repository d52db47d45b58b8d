"""The ledger's promises, kept by the database itself, whoever writes to it."""

from django.db import migrations

APPEND_ONLY = ("billing_transfer", "billing_entry", "billing_priceversion")

REFUSE = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: rows are only ever added', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
"""

# Statement triggers: they also refuse a change that happens to match no row, and TRUNCATE has no rows.
REFUSE_ON = """
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
UNREFUSE_ON = "DROP TRIGGER {table}_append_only ON {table};"

# I1: a transfer sums to zero at commit. I10: it moves the money of its own tenant, or of no tenant (a reseller's).
BALANCED = """
CREATE FUNCTION billing_check_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    total numeric;
    foreign_entries bigint;
BEGIN
    SELECT sum(entry.amount), count(*) FILTER (WHERE account.tenant_id <> entry.tenant_id)
        INTO total, foreign_entries
        FROM billing_entry entry JOIN billing_account account ON account.id = entry.account_id
        WHERE entry.tenant_id = NEW.tenant_id AND entry.transfer_id = NEW.transfer_id;
    IF total <> 0 THEN
        RAISE EXCEPTION 'transfer % does not sum to zero but to %', NEW.transfer_id, total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'billing_entry_balanced';
    END IF;
    IF foreign_entries > 0 THEN
        RAISE EXCEPTION 'transfer % crosses tenants', NEW.transfer_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'billing_entry_one_tenant';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER billing_entry_balanced AFTER INSERT ON billing_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_transfer();
"""
UNBALANCED = """
DROP TRIGGER billing_entry_balanced ON billing_entry;
DROP FUNCTION billing_check_transfer();
"""

# I5: a hold ends once, and what it ended with stays.
END_ONCE = """
CREATE FUNCTION billing_refuse_second_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'hold % has ended: %', OLD.id, OLD.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'billing_hold_ends_once';
END $$;
CREATE TRIGGER billing_hold_ends_once BEFORE UPDATE ON billing_hold FOR EACH ROW
    WHEN (OLD.state <> 'held' AND (NEW.state <> OLD.state OR NEW.charge <> OLD.charge
          OR NEW.wholesale_charge <> OLD.wholesale_charge))
    EXECUTE FUNCTION billing_refuse_second_end();
"""
END_OFTEN = """
DROP TRIGGER billing_hold_ends_once ON billing_hold;
DROP FUNCTION billing_refuse_second_end();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.RunSQL(
            REFUSE + "".join(REFUSE_ON.format(table=table) for table in APPEND_ONLY),
            "".join(UNREFUSE_ON.format(table=table) for table in APPEND_ONLY)
            + "DROP FUNCTION billing_refuse_change();",
        ),
        migrations.RunSQL(BALANCED, UNBALANCED),
        migrations.RunSQL(END_ONCE, END_OFTEN),
    ]

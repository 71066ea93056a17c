-- market_guard: has every call look first whether the market is sold in here.
--
-- A trigger sees writes alone, and a service may do nothing but read for hours. What the monitor and the audit call stays
-- as it is: they look at whatever is here. What PL/pgSQL is told at the head of a body stays there.

create or replace function market_guard()
returns void
language plpgsql
as $$
declare
  v_text constant record := market_guard_text();
  v_call record;
begin
  -- a loop, because each function is a statement of its own
  for v_call in
    select pg_get_functiondef(routine.oid) as definition, routine.prosrc as body,
           substring(routine.prosrc from E'^(?:[[:space:]]*#[^\n]*\n)*') as options
      from checkout_functions as deployed
      join pg_proc as routine on routine.oid = to_regprocedure(deployed.signature)
     where routine.prosecdef and routine.prorettype <> 'trigger'::regtype
       and deployed.name not in ('checkout_version', 'checkout_metrics', 'checkout_audit', 'checkout_audit_rest', 'checkout_audit_slice')
       and position(v_text.first in routine.prosrc) = 0
  loop
    execute replace(v_call.definition, v_call.body,
                    v_call.options || v_text.first || substr(v_call.body, length(v_call.options) + 1) || v_text.last);
  end loop;
end;
$$;

revoke execute on function market_guard() from public;

comment on function market_guard() is
  'Step of a move: every call but those of the monitor and the audit begins with market_refuse, until market_unguard.';

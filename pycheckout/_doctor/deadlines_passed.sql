select 'vendor_orders' as subject,
       format('has %%s orders that were to be paid in time, the first for %%s; together they owe %%s (minor units)',
              count(*), date_trunc('second', now() - min(due.expires_at)), sum(due.balance_due_cents)) as problem,
       'Start pycheckout expire --every 30s, or see what keeps it: select * from order_money where expires_at < now();' as remedy
  from vendor_orders as due
 where due.status = 'created_pending' and due.expires_at is not null and due.promo_discount_cents is not null
   and due.expires_at < now() - %(backlog)s::interval
having count(*) > 0

# shellcheck shell=bash
# What the adapters of Apache's two modules share: apache_start FILE starts Apache with deploy/apache's
# FILE, included from a small main file. See servers.sh for what an adapter is.

server_port=$(port_free)
server_tls_port=$(port_free)
server_repeat_id=UNIQUE_ID

# apache_more: a test may define its own, for further lines of the main file.
apache_more() { :; }

# What an administrator has: modules, a document root, two hosts.
apache_main() {
    local module
    for module in mpm_event access_compat authn_core authz_core authz_host alias cgid dir http2 include mime proxy proxy_http \
        rewrite socache_shmcb ssl; do
        printf 'LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n' "$module" "$module"
    done
    cat <<END
ServerRoot "$dir/$server"
DefaultRuntimeDir "$dir/$server/run"
PidFile "$dir/$server/run/pid"
ScriptSock "$dir/$server/run/cgid"
ErrorLog "$dir/$server/error.log"
ServerName $host
User www-data
Group www-data
Listen 127.0.0.1:$server_port
Listen 127.0.0.1:$server_tls_port
DocumentRoot "$dir/www"
TypesConfig /dev/null
DirectoryIndex page.html index.html
AddType text/html .html .shtml
AddOutputFilter INCLUDES .shtml
AddHandler cgi-script .cgi
Protocols h2 h2c http/1.1
<Directory "/">
  Require all denied
</Directory>
<Directory "$dir/www">
  Options +ExecCGI +Includes
  Require all granted
</Directory>
# What an old configuration may still say: whoever comes from an allowed address need not sign in.
<Directory "$dir/www/secure">
  Order allow,deny
  Allow from all
  Satisfy Any
</Directory>
<Proxy "http://127.0.0.1:$backend_port/*">
  Order allow,deny
  Allow from all
  Satisfy Any
</Proxy>
# A section that holds for the included file only: Apache then asks for access again.
<Files "part.html">
  FileETag None
</Files>
ProxyPass /secure/app http://127.0.0.1:$backend_port/secure/app
ProxyPass /app http://127.0.0.1:$backend_port/app
END
    [ "$server" != apache-fcgid ] || cat <<END
<IfModule !fcgid_module>
  LoadModule fcgid_module /usr/lib/apache2/modules/mod_fcgid.so
</IfModule>
FcgidIPCDir "$dir/$server/run/fcgid"
FcgidProcessTableFile "$dir/$server/run/fcgid-table"
END
    apache_more
    cat <<END
Include "$root/deploy/apache/$1"
<VirtualHost *:$server_port>
END
    apache_host
    cat <<END
</VirtualHost>
<VirtualHost *:$server_tls_port>
  SSLEngine on
  SSLCertificateFile "$dir/tls.crt"
  SSLCertificateKeyFile "$dir/tls.key"
END
    apache_host
    printf '</VirtualHost>\n'
}

apache_host() {
    cat <<END
  RewriteEngine On
  RewriteRule ^/moved/(.*) /secure/\$1 [PT]
  <Location /secure/own>
    ErrorDocument 401 /denied.html
  </Location>
END
}

apache_start() {
    server_port=$(port_free) # again: time has passed since the first
    server_tls_port=$(port_free)
    install -d "$dir/$server"
    install -d -o www-data -g www-data "$dir/$server/run" "$dir/$server/run/fcgid"
    apache_local >"$dir/$server/spnegate-local.conf"
    printf 'Define SPNEGATE_ACCESS_LOG "%s"\n' "$dir/$server/access.log" \
        >>"$dir/$server/spnegate-local.conf"
    apache_main "$1" >"$dir/$server/apache.conf"
    apache2 -D FOREGROUND -f "$dir/$server/apache.conf" >"$dir/$server.log" 2>&1 &
    pids+=($!)
    wait_for 20 port_open "$server_port" || fail "Apache did not start: $(cat "$dir/$server/error.log")"
    wait_for 20 port_open "$server_tls_port" || fail "Apache did not start with TLS"
}

server_check() {
    apache2 -t -f "$dir/$server/apache.conf"
}

# apache_odd_spellings: Apache cannot remove a header by pattern. What is spelled with other signs than
# "-" and "_" is refused before it reaches anybody.
apache_odd_spellings() {
    local header path before
    spnegate_start
    before=$(reached)
    kinit_as alice
    for header in X.Remote.User 'X~Remote~User' 'x!remote#user' Remote.User Auth.Type Audit.Id \
        Variable.Spnegate Variable-Other Spnegate-Asked; do
        for path in /app /env.cgi /index.html; do
            check_equal "$server, $header, $path" 403 "$(ask -H "$header: evil" "$path")"
        done
        for path in app env.cgi page.html; do
            check_equal "$server, $header, alice, $path" 403 \
                "$(ask --negotiate --user : -H "$header: evil" "/secure/$path")"
            never_served "$server, $header, alice, $path"
        done
    done
    check_equal "$server, odd spellings: reached" 0 $(($(reached) - before))
    check_equal "$server, without them" 200 "$(ask --negotiate --user : /secure/app)"
    spnegate_stop
}

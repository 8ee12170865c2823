// Web shells for Java servers: JSP and JSPX pages. Compiled classes and archives
// are not unpacked here.

rule webshell_jsp_exec_of_request : webshell jsp
{
    meta:
        description = "JSP that runs a command taken straight from the request"
        severity = "Critical"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        // The parameter stands inside the call itself.
        $direct = /(getRuntime\s{0,4}\(\s{0,4}\)\s{0,4}\.\s{0,4}exec|new\s{1,4}(java\.lang\.)?ProcessBuilder)\s{0,4}\(\s{0,4}(new\s{1,4}String\s{0,2}\[\s{0,2}\]\s{0,2}\{[^};]{0,80})?(\w{1,24}\s{0,2}[.(]\s{0,2}){0,4}request\s{0,2}\.\s{0,2}(getParameter|getHeader|getQueryString|getCookies)/

    condition:
        // A page, not a text about one: the first bytes are JSP.
        filesize < 8KB and $tag in (0..64) and $direct
}

rule webshell_jsp_command : webshell jsp
{
    meta:
        description = "JSP that starts processes and prints their output by request"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $source1 = /\.\s{0,2}get(Parameter(Values|Map)?|Header|QueryString|Cookies|Reader|InputStream|PathInfo|Part)\s{0,2}\(/
        $source2 = /\$\{\s{0,2}(param|header|cookie)\b/
        $run1 = /\bgetRuntime\s{0,4}\(\s{0,4}\)\s{0,8}\.\s{0,4}exec\s{0,4}\(/
        $run2 = /new\s{1,4}(java\.lang\.)?ProcessBuilder\s{0,4}\(/
        $run3 = /Runtime\s{1,4}(\w{1,20})\s{0,4}=\s{0,4}[^;]{0,40}getRuntime\s{0,2}\(\)[^\x00]{0,300}\.exec\s{0,4}\(/
        $output = /\.\s{0,2}get(InputStream|ErrorStream)\s{0,4}\(\s{0,4}\)|inheritIO|inputReader\s{0,2}\(/
        // The parameter inside the call: no output is needed.
        $direct = /(getRuntime\s{0,4}\(\s{0,4}\)\s{0,4}\.\s{0,4}exec|new\s{1,4}(java\.lang\.)?ProcessBuilder)\s{0,4}\(\s{0,4}(new\s{1,4}String\s{0,2}\[\s{0,2}\]\s{0,2}\{[^};]{0,80})?(\w{1,24}\s{0,2}[.(]\s{0,2}){0,4}request\s{0,2}\.\s{0,2}get(Parameter|Header|QueryString|Cookies)/

    condition:
        filesize < 128KB and $tag
        and ($direct or (any of ($source*) and any of ($run*) and $output))
}

rule webshell_jsp_class_from_request : webshell jsp
{
    meta:
        description = "JSP that turns what a visitor sends into a class and runs it"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $loader1 = /extends\s{1,4}(java\.lang\.)?(Secure|URL)?ClassLoader\b/
        $loader2 = /\bdefineClass\s{0,4}[("]/
        $loader3 = /"define(Class|AnonymousClass)"/
        $loader4 = /new\s{1,4}(java\.net\.)?URLClassLoader\s{0,4}\(/
        $loader5 = /\bBCEL\b|com\.sun\.org\.apache\.bcel/
        $source1 = /\.\s{0,2}get(Parameter(Values|Map)?|Header|QueryString|Cookies|Reader|InputStream|Part)\s{0,2}\(/
        $run1 = /\.\s{0,2}newInstance\s{0,2}\(/
        $run2 = /\.\s{0,2}invoke\s{0,2}\(/
        $run3 = /\.\s{0,2}equals\s{0,2}\(\s{0,2}(pageContext|request|\w{1,12})\s{0,2}\)/

    condition:
        filesize < 128KB and $tag
        and any of ($loader*) and $source1 and any of ($run*)
}

rule webshell_jsp_reflection : webshell jsp
{
    meta:
        description = "JSP that reaches the process API by reflection or with a hidden name"
        severity = "Error"
        attack = "T1027.010"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))|\$\{/
        $source1 = /\.\s{0,2}get(Parameter(Values|Map)?|Header|QueryString|Cookies|Reader|InputStream|Part)\s{0,2}\(/
        $source2 = /\$\{\s{0,2}(param|header|cookie)\b|\bparam\s{0,2}[.\[]/
        $forname = /(forName|loadClass)\s{0,4}\(/
        $getmethod = /get(Declared)?(Method|Constructor)s?\s{0,4}\(/
        $invoke = /\.\s{0,2}(invoke|newInstance)\s{0,4}\(/

        // Names: plain, as bytes ("java" and what follows), in base64, cut, backwards.
        $name1 = /"java\.lang\.(Runtime|ProcessBuilder|ProcessImpl|UNIXProcess)"/
        $name2 = /new\s{1,4}byte\s{0,2}\[\s{0,2}\]\s{0,2}\{\s{0,2}(106\s{0,2},\s{0,2}97\s{0,2},\s{0,2}118|0x6a\s{0,2},\s{0,2}0x61\s{0,2},\s{0,2}0x76)/
        $name3 = /"(amF2YS5sYW5nLlJ1bnRpbWU=|amF2YS5sYW5nLlByb2Nlc3NCdWlsZGVy|Z2V0UnVudGltZQ==|ZXhlYw==)"/
        $name4 = /"(get)?(R|Ru|Run|Runt|Runti|Runtim|java\.lang\.R|java\.lang\.Run|java\.la|java\.lang\.)"\s{0,2}(\+\s{0,2}"|\)?\.concat\s{0,2}\()/
        $name5 = /"(emitnuR\.gnal\.avaj|emitnuRteg|redliuBssecorP\.gnal\.avaj)"/

        // Expression language that climbs from an object to the process API.
        $el1 = /\$\{[^}\n]{0,200}(getClass\s{0,2}\(\s{0,2}\)|\.class|\["class"\]|forName)[^\n]{0,300}(Runtime|ProcessBuilder|ScriptEngine|invoke|exec)/
        $el2 = /(ELProcessor|ExpressionFactory|SpelExpressionParser|OgnlContext|ELManager)\b[^\x00]{0,400}\.(eval|parseExpression|createValueExpression|getValue)\s{0,2}\([^;\n]{0,120}(getParameter|getHeader)\s{0,2}\(/

    condition:
        filesize < 128KB and $tag and any of ($source*)
        and (
            (any of ($name*) and ($getmethod or $forname) and $invoke)
            or any of ($el*)
        )
}

rule webshell_jsp_script_engine : webshell jsp
{
    meta:
        description = "JSP that evaluates script code from the request"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $engine = /ScriptEngineManager|GroovyShell|jdk\.jshell|JShell\b|NashornScriptEngine|org\.mozilla\.javascript|bsh\.Interpreter/
        $eval = /\.\s{0,2}(eval|evaluate|evaluateString)\s{0,2}\(/
        $source = /request\s{0,2}\.\s{0,2}get(Parameter(Values|Map)?|Header|QueryString|Cookies|Reader|InputStream)\s{0,2}\(/

    condition:
        filesize < 64KB and $tag and $engine and $eval and $source
}

rule webshell_jsp_deserializes_request : webshell jsp
{
    meta:
        description = "JSP that deserialises an object or bean that a visitor sends"
        severity = "Warning"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $read = /new\s{1,4}(java\.(io|beans)\.)?(ObjectInputStream|XMLDecoder)\s{0,4}\([^;]{0,160}(request\s{0,2}\.\s{0,2}get|getParameter|decode)/

    condition:
        filesize < 64KB and $tag and $read
}

rule webshell_jsp_memory_resident : webshell jsp
{
    meta:
        description = "JSP that plants a filter, servlet, listener or valve in the running server"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $inner1 = "StandardContext"
        $inner2 = "ApplicationContext"
        $inner3 = "ApplicationFilterConfig"
        $inner4 = "RequestMappingHandlerMapping"
        $plant1 = /\.\s{0,2}addFilter(Def|MapBefore|Map)?\s{0,2}\(/
        $plant2 = /\.\s{0,2}addServletMapping(Decoded)?\s{0,2}\(/
        $plant3 = /\.\s{0,2}addApplicationEventListener\s{0,2}\(/
        $plant4 = /getPipeline\s{0,2}\(\s{0,2}\)\s{0,2}\.\s{0,2}addValve\s{0,2}\(/
        $plant5 = /filterConfigs/
        $reflect = /getDeclaredField\s{0,2}\(/

    condition:
        filesize < 128KB and $tag and any of ($inner*) and any of ($plant*) and $reflect
}

rule webshell_jsp_file_writer : webshell jsp
{
    meta:
        description = "JSP that writes a visitor's content to a visitor's path"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s]|jsp:(scriptlet|root|declaration|directive))/
        $write = /new\s{1,4}(java\.io\.)?(FileOutputStream|FileWriter|PrintWriter|RandomAccessFile)\s{0,4}\(\s{0,4}([^;]{0,60}getRealPath\s{0,2}\([^;]{0,40}|new\s{1,4}(java\.io\.)?File\s{0,2}\()?[^;]{0,60}request\s{0,2}\.\s{0,2}getParameter\s{0,2}\([^;]{1,80}\)[^;]{0,20}\.\s{0,2}write\s{0,2}\([^;]{0,60}request\s{0,2}\.\s{0,2}getParameter/
        $nio = /Files\s{0,2}\.\s{0,2}(write|writeString|copy)\s{0,2}\([^;]{0,80}request\s{0,2}\.\s{0,2}getParameter[^;]{1,120}request\s{0,2}\.\s{0,2}get(Parameter|InputStream)/

    condition:
        filesize < 64KB and $tag and any of ($write, $nio)
}

rule webshell_jsp_unicode_escapes : webshell jsp
{
    meta:
        description = "JSP whose Java code is written in Unicode escapes"
        severity = "Error"
        attack = "T1027.010"
        reference = "none"
        version = 1

    strings:
        $tag = /<(%[@!=\s\\]|jsp:(scriptlet|root|declaration|directive))/
        // Escapes are for characters that a keyboard lacks: a row of ASCII letters
        // written so hides code.
        $letters = /(\\u{1,8}00[2-7][0-9a-fA-F]){24}/

    condition:
        filesize < 256KB and $tag and $letters
}
